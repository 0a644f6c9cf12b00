dnl SPDX-License-Identifier: BSD-3-Clause

dnl TROUPE_MPI: finds an MPI without making its wrapper the compiler, so that
dnl CC stays the user's choice. Sets MPI_CFLAGS, MPI_LIBS, MPIRUN, and
dnl mpi_flavour (openmpi, mpich or other).
dnl
dnl --with-mpi=openmpi | mpich | WRAPPER | PREFIX. Debian can have both
dnl installed; their wrappers and launchers then have suffixes.
AC_DEFUN([TROUPE_MPI], [
    AC_ARG_WITH([mpi],
        [AS_HELP_STRING([--with-mpi=WHICH],
             [openmpi, mpich, a compiler wrapper, or the directory that
              has bin/mpicc (default: mpicc)])],
        [], [with_mpi=yes])
    AC_ARG_VAR([MPICC], [MPI compiler wrapper, only asked for its flags])
    AC_ARG_VAR([MPIRUN], [MPI launcher for the tests and examples])
    AC_ARG_VAR([MPI_CFLAGS], [flags to compile with MPI, overriding MPICC])
    AC_ARG_VAR([MPI_LIBS], [flags to link with MPI, overriding MPICC])
    TROUPE_MPI_WRAPPER
    TROUPE_MPI_FLAGS
    TROUPE_MPI_LINK
    TROUPE_MPI_LAUNCHER
    AC_SUBST([MPI_FLAVOUR], [$mpi_flavour])
])

dnl Chooses the wrapper: MPICC.
AC_DEFUN([TROUPE_MPI_WRAPPER], [
    AS_CASE([$with_mpi],
        [yes], [troupe_wrappers="mpicc mpicc.openmpi mpicc.mpich"],
        [no], [AC_MSG_ERROR([troupe cannot be built without MPI])],
        [openmpi], [troupe_wrappers="mpicc.openmpi mpicc"],
        [mpich], [troupe_wrappers="mpicc.mpich mpicc"],
        [AS_IF([test -d "$with_mpi"], [troupe_wrappers=$with_mpi/bin/mpicc],
               [troupe_wrappers=$with_mpi])])
    AS_IF([test -z "$MPICC"], [AC_PATH_PROGS([MPICC], [$troupe_wrappers])])
])

dnl Asks the wrapper, or pkg-config when there is none.
AC_DEFUN([TROUPE_MPI_FLAGS], [
    AC_MSG_CHECKING([for MPI flags])
    troupe_from=given
    AS_IF([test -n "$MPI_CFLAGS$MPI_LIBS"], [],
          [test -z "$MPICC"], [
        troupe_from=
        for troupe_module in ompi-c mpich; do
            AS_IF([$PKG_CONFIG --exists $troupe_module 2>/dev/null], [
                MPI_CFLAGS=`$PKG_CONFIG --cflags $troupe_module`
                MPI_LIBS=`$PKG_CONFIG --libs $troupe_module`
                troupe_from="pkg-config $troupe_module"
                break])
        done],
          [MPI_CFLAGS=`$MPICC --showme:compile 2>/dev/null`], [
        MPI_LIBS=`$MPICC --showme:link`
        troupe_from="$MPICC --showme"],
          [MPI_CFLAGS=`$MPICC -compile-info 2>/dev/null`], [
        MPI_LIBS=`$MPICC -link-info`
        troupe_from="$MPICC -link-info"],
          [troupe_from=])
    TROUPE_MPI_KEEP([MPI_CFLAGS], [-I*|-D*|-pthread])
    TROUPE_MPI_KEEP([MPI_LIBS], [-L*|-l*|-Wl,-rpath*|-pthread])
    AC_MSG_RESULT([${troupe_from:-none}])
])

dnl TROUPE_MPI_KEEP(VARIABLE, PATTERN): MPICH's wrapper answers with a whole
dnl command line; keep the flags that count.
AC_DEFUN([TROUPE_MPI_KEEP], [
    AS_IF([test "$troupe_from" != given], [
        troupe_all=$$1
        $1=
        for troupe_word in $troupe_all; do
            AS_CASE([$troupe_word], [$2], [$1="$$1 $troupe_word"])
        done
        $1=${$1# }
    ])
])

dnl Links a program; finds out which MPI it is.
AC_DEFUN([TROUPE_MPI_LINK], [
    troupe_saved_cppflags=$CPPFLAGS
    troupe_saved_libs=$LIBS
    CPPFLAGS="$CPPFLAGS $MPI_CFLAGS"
    LIBS="$MPI_LIBS $LIBS"
    AC_MSG_CHECKING([whether a program with MPI_Init links])
    AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <mpi.h>]],
                                    [[MPI_Init(0, 0);]])],
        [AC_MSG_RESULT([yes])],
        [AC_MSG_RESULT([no])
         AS_CASE([$with_mpi],
             [mpich], [TROUPE_MISSING([MPICH], [libmpich-dev])],
             [TROUPE_MISSING([MPI], [libopenmpi-dev (or libmpich-dev)])])])
    mpi_flavour=other
    AC_PREPROC_IFELSE([AC_LANG_SOURCE([[
#include <mpi.h>
#ifndef OPEN_MPI
#error
#endif]])], [mpi_flavour=openmpi])
    AC_PREPROC_IFELSE([AC_LANG_SOURCE([[
#include <mpi.h>
#ifndef MPICH_VERSION
#error
#endif]])], [mpi_flavour=mpich])
    CPPFLAGS=$troupe_saved_cppflags
    LIBS=$troupe_saved_libs
])

dnl The launcher that belongs to the wrapper: beside it, or with its suffix.
AC_DEFUN([TROUPE_MPI_LAUNCHER], [
    troupe_mpi_dir=`AS_DIRNAME(["$MPICC"])`
    AS_CASE([$mpi_flavour],
        [openmpi], [troupe_launchers="mpirun.openmpi mpirun mpiexec"],
        [mpich], [troupe_launchers="mpiexec.mpich mpiexec.hydra mpiexec"],
        [troupe_launchers="mpirun mpiexec"])
    AS_IF([test -z "$MPIRUN"],
          [AC_PATH_PROGS([MPIRUN], [$troupe_launchers], [],
                         [$troupe_mpi_dir$PATH_SEPARATOR$PATH])])
    AS_IF([test -z "$MPIRUN"],
          [AC_MSG_WARN([no MPI launcher (Debian packages openmpi-bin or \
mpich): tests with several ranks will be skipped])])
])
