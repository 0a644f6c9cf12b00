dnl SPDX-License-Identifier: BSD-3-Clause

dnl TROUPE_FLAG(VARIABLE, FLAG): appends FLAG to VARIABLE if the compiler of
dnl the current language takes it. -Werror makes clang refuse unknown flags.
AC_DEFUN([TROUPE_FLAG], [
    AS_VAR_PUSHDEF([cache], [troupe_cv_[]_AC_LANG_ABBREV[]_flag_$2])
    AC_CACHE_CHECK([whether $[]_AC_CC takes $2], [cache], [
        troupe_saved_flags=$[]_AC_LANG_PREFIX[]FLAGS
        _AC_LANG_PREFIX[]FLAGS="$troupe_saved_flags -Werror $2"
        AC_COMPILE_IFELSE([AC_LANG_PROGRAM()],
                          [AS_VAR_SET([cache], [yes])],
                          [AS_VAR_SET([cache], [no])])
        _AC_LANG_PREFIX[]FLAGS=$troupe_saved_flags
    ])
    AS_VAR_IF([cache], [yes], [$1="$$1 $2"])
    AS_VAR_POPDEF([cache])
])

dnl TROUPE_COMPILER: STD_CFLAGS, WARN_CFLAGS; --enable-werror.
AC_DEFUN([TROUPE_COMPILER], [
    AC_ARG_ENABLE([werror],
        [AS_HELP_STRING([--enable-werror], [warnings are errors (for CI)])],
        [], [enable_werror=no])
    TROUPE_FLAG([STD_CFLAGS], [-std=gnu11])
    m4_foreach_w([flag], [-Wall -Wextra -Wshadow -Wpointer-arith
                          -Wstrict-prototypes -Wmissing-prototypes
                          -Wold-style-definition -Wwrite-strings -Wundef
                          -Wvla -Wimplicit-fallthrough],
                 [TROUPE_FLAG([WARN_CFLAGS], flag)])
    AS_VAR_IF([enable_werror], [yes],
              [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
    AC_SUBST([STD_CFLAGS])
    AC_SUBST([WARN_CFLAGS])
])

dnl TROUPE_CXX: only a test needs a C++ compiler. have_cxx, HAVE_CXX.
AC_DEFUN([TROUPE_CXX], [
    AC_LANG_PUSH([C++])
    AC_CACHE_CHECK([whether $CXX works with C++17], [troupe_cv_cxx17], [
        troupe_saved_flags=$CXXFLAGS
        CXXFLAGS="$CXXFLAGS -std=c++17"
        AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <type_traits>]],
                           [[static_assert(std::is_same_v<int, int>);]])],
                       [troupe_cv_cxx17=yes], [troupe_cv_cxx17=no])
        CXXFLAGS=$troupe_saved_flags
    ])
    AC_LANG_POP([C++])
    AM_CONDITIONAL([HAVE_CXX], [test "$troupe_cv_cxx17" = yes])
])

dnl TROUPE_SANITIZER: --enable-sanitizer=LIST gives SANITIZER_FLAGS, for
dnl compiling and linking, and the conditional SANITIZED. The export map is
dnl left out then: sanitizers define symbols of their own in the library.
AC_DEFUN([TROUPE_SANITIZER], [
    AC_ARG_ENABLE([sanitizer],
        [AS_HELP_STRING([--enable-sanitizer=LIST],
             [address, undefined, or "address,undefined", or thread])],
        [], [enable_sanitizer=no])
    SANITIZER_FLAGS=
    AS_CASE([$enable_sanitizer],
        [no], [],
        [address|undefined|address,undefined|undefined,address|thread],
        [SANITIZER_FLAGS="-fsanitize=$enable_sanitizer"
         SANITIZER_FLAGS="$SANITIZER_FLAGS -fno-omit-frame-pointer"],
        [AC_MSG_ERROR([--enable-sanitizer=$enable_sanitizer: not one of \
address, undefined, "address,undefined", thread])])
    AS_CASE([$enable_sanitizer],
        [*undefined*],
        [SANITIZER_FLAGS="$SANITIZER_FLAGS -fno-sanitize-recover=undefined"])
    dnl The code asks for what gcc defines; clang 14 defines neither.
    AC_CHECK_DECL([__clang__], [AS_CASE([$enable_sanitizer],
        [*address*],
        [SANITIZER_FLAGS="$SANITIZER_FLAGS -D__SANITIZE_ADDRESS__=1"],
        [thread],
        [SANITIZER_FLAGS="$SANITIZER_FLAGS -D__SANITIZE_THREAD__=1"])])
    dnl Their checks confuse this warning (gcc's manual says so).
    AS_IF([test -n "$SANITIZER_FLAGS"],
          [TROUPE_FLAG([WARN_CFLAGS], [-Wno-maybe-uninitialized])])
    AS_IF([test -n "$SANITIZER_FLAGS"], [
        AC_MSG_CHECKING([whether $CC links with $SANITIZER_FLAGS])
        troupe_saved_flags=$CFLAGS
        CFLAGS="$CFLAGS $SANITIZER_FLAGS"
        AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes])], [
            AC_MSG_RESULT([no])
            AC_MSG_ERROR([$CC cannot link with $SANITIZER_FLAGS \
(clang needs Debian's libclang-rt-dev)])])
        CFLAGS=$troupe_saved_flags
    ])
    AC_SUBST([SANITIZER_FLAGS])
    AC_SUBST([SANITIZER], [$enable_sanitizer])
    AM_CONDITIONAL([SANITIZED], [test -n "$SANITIZER_FLAGS"])
])

dnl TROUPE_DEBUG: --enable-debug keeps the assertions; sanitized builds and
dnl fuzzers always do. DEBUG_CPPFLAGS. After TROUPE_SANITIZER and _FUZZERS.
AC_DEFUN([TROUPE_DEBUG], [
    AC_ARG_ENABLE([debug],
        [AS_HELP_STRING([--enable-debug], [check assertions])],
        [], [enable_debug=no])
    DEBUG_CPPFLAGS=-DNDEBUG
    AS_IF([test "$enable_debug" = yes || test -n "$SANITIZER_FLAGS" ||
           test "$enable_fuzzers" = yes], [DEBUG_CPPFLAGS=])
    AC_SUBST([DEBUG_CPPFLAGS])
])

dnl TROUPE_FUZZERS: --enable-fuzzers gives FUZZER_FLAGS, for the fuzz targets
dnl alone, and the conditional FUZZERS_WANTED.
AC_DEFUN([TROUPE_FUZZERS], [
    AC_ARG_ENABLE([fuzzers],
        [AS_HELP_STRING([--enable-fuzzers],
             [build what make check-fuzz runs (clang)])],
        [], [enable_fuzzers=no])
    FUZZER_FLAGS=
    AS_VAR_IF([enable_fuzzers], [yes], [
        FUZZER_FLAGS="-fsanitize=fuzzer,address,undefined"
        FUZZER_FLAGS="$FUZZER_FLAGS -fno-sanitize-recover=undefined"
        FUZZER_FLAGS="$FUZZER_FLAGS -D__SANITIZE_ADDRESS__=1"
        AC_MSG_CHECKING([whether $CC has libFuzzer])
        troupe_saved_flags=$CFLAGS
        CFLAGS="$CFLAGS -fsanitize=fuzzer,address,undefined"
        AC_LINK_IFELSE([AC_LANG_SOURCE([[
            #include <stddef.h>
            int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);
            int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
            { return data == 0 && n > 0; }]])], [AC_MSG_RESULT([yes])], [
            AC_MSG_RESULT([no])
            AC_MSG_ERROR([--enable-fuzzers needs CC=clang \
(Debian's clang and libclang-rt-dev)])])
        CFLAGS=$troupe_saved_flags
        AS_IF([test -n "$SANITIZER_FLAGS"],
              [AC_MSG_ERROR([--enable-fuzzers brings its own sanitizers: \
leave --enable-sanitizer out])])
    ])
    AC_SUBST([FUZZER_FLAGS])
    AM_CONDITIONAL([FUZZERS_WANTED], [test "$enable_fuzzers" = yes])
])
