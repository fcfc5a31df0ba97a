// SPDX-License-Identifier: Apache-2.0
//
// What may stand where the cursor is: `kvctl __complete WORDS...`, called by the completions of
// bash and zsh. The last word is the one that is being typed.
//
//   words              a first line that says what follows:
//   tiers/<TAB>typed     words    candidates, a line each: word, tab, description
//   ...                  files    nothing: a file's name is wanted, the shell knows better
//                        dirs     nothing: a directory's
//
// Commands and options come from the command line's own definition, so they cannot differ from it;
// paths, sessions, areas and values come from the runtime that the words name. A candidate that
// ends in '/' goes on. What goes wrong gives no candidates and no message.
//
// Thread safety: a function.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace kvmm::ctl {

int complete(CLI::App& app, std::vector<std::string> words);

}  // namespace kvmm::ctl
