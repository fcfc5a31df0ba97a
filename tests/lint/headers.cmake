# SPDX-License-Identifier: Apache-2.0
# kvmm_headers_alone(TARGET ROOT LIBS... ): every header below ROOT compiles alone, and twice.
#
# Each header gets a source file that includes nothing else. The object library is no part of `all`: the
# ctest entry `lint_headers` builds it, so that a header that needs a neighbour fails a test and not
# everybody's build.
function(kvmm_headers_alone target root)
  cmake_parse_arguments(H "" "" "LIBS;SKIP" ${ARGN})
  set(headers)
  foreach(dir runtime drivers vmm tiers sched tools tests)
    file(GLOB_RECURSE found CONFIGURE_DEPENDS RELATIVE ${root} ${root}/${dir}/*.h ${root}/${dir}/*.hpp)
    list(APPEND headers ${found})
  endforeach()
  foreach(pattern ${H_SKIP})
    list(FILTER headers EXCLUDE REGEX ${pattern})
  endforeach()
  set(units)
  foreach(header ${headers})
    string(MAKE_C_IDENTIFIER ${header} id)
    set(unit ${CMAKE_CURRENT_BINARY_DIR}/${target}/${id}.cc)
    file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"@header@\"\n#include \"@header@\"\n" @ONLY)
    list(APPEND units ${unit})
    if(header MATCHES "^runtime/include/.*\\.h$") # a C header too
      set(unit ${CMAKE_CURRENT_BINARY_DIR}/${target}/${id}.c)
      file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"@header@\"\n#include \"@header@\"\ntypedef int kvmm_unit_is_not_empty;\n" @ONLY)
      list(APPEND units ${unit})
    endif()
  endforeach()
  add_library(${target} OBJECT EXCLUDE_FROM_ALL ${units})
  target_include_directories(${target} PRIVATE ${root} ${root}/runtime/include)
  target_compile_options(${target} PRIVATE -O0 -g0 -Wall -Wextra $<$<COMPILE_LANGUAGE:C>:-std=c11 -Wpedantic>)
  target_link_libraries(${target} PRIVATE ${H_LIBS})
endfunction()
