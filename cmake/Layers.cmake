# One target per folder. A target sees the headers of its own folder and of its (transitive) DEPS,
# and nothing else: its only include directory is a tree of links made here, so an include that
# points upward does not compile.

# Fills build/layers/<target> with links to EXPOSED (folders or single headers, relative to the
# source root) and makes it the target's include directory.
function(quantmill_expose target)
  set(root "${CMAKE_BINARY_DIR}/layers/${target}")
  file(REMOVE_RECURSE "${root}")
  foreach(path IN LISTS ARGN)
    cmake_path(GET path PARENT_PATH parent)
    file(MAKE_DIRECTORY "${root}/${parent}")
    file(CREATE_LINK "${CMAKE_SOURCE_DIR}/${path}" "${root}/${path}" SYMBOLIC)
  endforeach()
  target_include_directories(${target} PRIVATE "${root}")
endfunction()

# Everything that DEPS expose, transitively.
function(quantmill_collect result)
  set(all "")
  foreach(dep IN LISTS ARGN)
    if(NOT TARGET ${dep})
      message(FATAL_ERROR "layer '${dep}' does not exist (yet): DEPS point down only; "
                          "CMakeLists.txt adds folders from the bottom up")
    endif()
    get_target_property(exposed ${dep} QUANTMILL_EXPOSED)
    list(APPEND all ${exposed})
  endforeach()
  list(REMOVE_DUPLICATES all)
  set(${result} "${all}" PARENT_SCOPE)
endfunction()

# quantmill_library(<name> SOURCES ... [HEADERS paths] [DEPS layers] [LIBRARIES external])
# HEADERS: what the layers above may include, default the whole folder; paths relative to the root.
function(quantmill_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;HEADERS;DEPS;LIBRARIES" ${ARGN})
  cmake_path(RELATIVE_PATH CMAKE_CURRENT_SOURCE_DIR BASE_DIRECTORY "${CMAKE_SOURCE_DIR}"
             OUTPUT_VARIABLE folder)
  add_library(${name} STATIC ${ARG_SOURCES})
  quantmill_collect(below ${ARG_DEPS})
  if(NOT ARG_HEADERS)
    set(ARG_HEADERS "${folder}")
  endif()
  set_target_properties(${name} PROPERTIES QUANTMILL_EXPOSED "${below};${ARG_HEADERS}"
                                           OUTPUT_NAME "quantmill_${name}")
  quantmill_expose(${name} ${below} ${ARG_HEADERS})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} ${ARG_LIBRARIES} PRIVATE quantmill_flags)
endfunction()

# quantmill_executable(<name> SOURCES ... DEPS layers): the binary build/<preset>/<name>.
function(quantmill_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  quantmill_collect(below ${ARG_DEPS})
  quantmill_expose(${name} ${below})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} quantmill_flags)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
endfunction()

# quantmill_test(<name> SOURCES ... DEPS layers [INTERNAL paths] [LIBRARIES external] [BY_HAND])
# INTERNAL: folders whose private headers the test may see. Registered with ctest as <name>; BY_HAND: neither
# registered nor built unless asked for.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/test_tmp")
function(quantmill_test name)
  cmake_parse_arguments(ARG "BY_HAND" "" "SOURCES;DEPS;INTERNAL;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  quantmill_collect(below ${ARG_DEPS})
  # A folder given as INTERNAL replaces the single headers exposed from it.
  foreach(path IN LISTS ARG_INTERNAL)
    list(FILTER below EXCLUDE REGEX "^${path}(/|$)")
  endforeach()
  quantmill_expose(${name} ${below} ${ARG_INTERNAL} tests/support)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} ${ARG_LIBRARIES} quantmill_flags
                                        GTest::gmock GTest::gtest_main)
  if(ARG_BY_HAND)
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  else()
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
    # Of this build alone: tests of two builds may run at once.
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "TEST_TMPDIR=${CMAKE_BINARY_DIR}/test_tmp/")
  endif()
endfunction()
