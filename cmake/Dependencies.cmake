# Every dependency, from Debian. A missing one ends the configuration with the line that installs it.
function(quantmill_need found package)
  if(NOT ${found})
    message(FATAL_ERROR "missing dependency: install it with 'apt-get install ${package}' "
                        "(scripts/setup installs all of them)")
  endif()
endfunction()

find_package(Threads REQUIRED)

find_package(nlohmann_json QUIET)
quantmill_need(nlohmann_json_FOUND nlohmann-json3-dev)
find_package(CLI11 QUIET)
quantmill_need(CLI11_FOUND libcli11-dev)
find_package(fmt QUIET)
quantmill_need(fmt_FOUND libfmt-dev)
find_package(yaml-cpp QUIET)
quantmill_need(yaml-cpp_FOUND libyaml-cpp-dev)
find_package(OpenSSL QUIET COMPONENTS Crypto)  # SHA-256
quantmill_need(OPENSSL_FOUND libssl-dev)

find_package(PkgConfig QUIET)
quantmill_need(PKG_CONFIG_FOUND pkg-config)
pkg_check_modules(PCRE2 QUIET IMPORTED_TARGET libpcre2-8)
quantmill_need(PCRE2_FOUND libpcre2-dev)
find_path(UTF8PROC_INCLUDE utf8proc.h)
find_library(UTF8PROC_LIBRARY utf8proc)
quantmill_need(UTF8PROC_LIBRARY libutf8proc-dev)

if(QUANTMILL_TESTS)
  find_package(GTest QUIET)
  quantmill_need(GTest_FOUND "libgtest-dev libgmock-dev")
endif()
if(QUANTMILL_TESTS OR QUANTMILL_BENCH)
  find_package(Boost QUIET COMPONENTS context)  # fibers of the host executor of CUDA kernels
  quantmill_need(Boost_FOUND libboost-context-dev)
endif()
