dnl SPDX-License-Identifier: BSD-3-Clause

dnl TROUPE_MISSING(WHAT, DEBIAN-PACKAGE): remembers a missing dependency.
AC_DEFUN([TROUPE_MISSING], [
    troupe_missing="$troupe_missing
    $1: Debian package $2"
])

dnl TROUPE_MISSING_REPORT: ends configure if anything was missing.
AC_DEFUN([TROUPE_MISSING_REPORT], [
    AS_IF([test -n "$troupe_missing"],
          [AC_MSG_ERROR([missing:
$troupe_missing

scripts/deps installs what is missing on Debian.])])
])

dnl TROUPE_NEEDS(PREFIX, MODULE, DEBIAN-PACKAGE): PREFIX_CFLAGS, PREFIX_LIBS.
AC_DEFUN([TROUPE_NEEDS], [
    PKG_CHECK_MODULES([$1], [$2], [], [TROUPE_MISSING([$2], [$3])])
])

dnl TROUPE_WANTS(PREFIX, MODULE, DEBIAN-PACKAGE, WHAT): as TROUPE_NEEDS, but
dnl without it only WHAT is left out. Conditional HAVE_PREFIX.
AC_DEFUN([TROUPE_WANTS], [
    PKG_CHECK_MODULES([$1], [$2], [troupe_have_$1=yes], [
        troupe_have_$1=no
        AC_MSG_WARN([$2 is missing (Debian package $3): no $4])])
    AM_CONDITIONAL([HAVE_$1], [test "$troupe_have_$1" = yes])
])

dnl TROUPE_TESTS: --enable-tests; without cmocka and without being asked,
dnl configure goes on and says so.
AC_DEFUN([TROUPE_TESTS], [
    AC_ARG_ENABLE([tests],
        [AS_HELP_STRING([--enable-tests],
             [build the tests of make check (default: if cmocka is there)])],
        [], [enable_tests=auto])
    troupe_tests=no
    AS_IF([test "$enable_tests" != no], [
        PKG_CHECK_MODULES([CMOCKA], [cmocka >= 1.1], [troupe_tests=yes], [
            AS_VAR_IF([enable_tests], [yes],
                [TROUPE_MISSING([cmocka >= 1.1], [libcmocka-dev])
                 TROUPE_MISSING_REPORT])
            AC_MSG_WARN([cmocka is missing (Debian package libcmocka-dev): \
make check will have no tests])])
    ])
    AM_CONDITIONAL([TESTS_WANTED], [test "$troupe_tests" = yes])
])
