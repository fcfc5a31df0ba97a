# SPDX-License-Identifier: Apache-2.0
# Writes the source that names the commit, at each build and only if it is another one:
#   cmake -DSOURCE=<tree> -DOUT=<file.cc> -P commit.cmake
# A tree with changes says so; one that is not under git is "unknown".
set(commit "unknown")
find_program(git git)
if(git)
  execute_process(COMMAND ${git} describe --always --dirty --abbrev=12 --exclude=*
                  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE said
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
  if(result EQUAL 0)
    set(commit ${said})
  endif()
endif()
set(text "#include \"tools/kvbench/machine.h\"

std::string kvmm::bench::commit_text() {
  return \"${commit}\";
}
")
set(before "")
if(EXISTS ${OUT})
  file(READ ${OUT} before)
endif()
if(NOT before STREQUAL text)
  file(WRITE ${OUT} "${text}")
endif()
