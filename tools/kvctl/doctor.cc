// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {

using Json = nlohmann::ordered_json;

const char* health_name(Health health) {
  switch (health) {
    case Health::kOk:
      return "ok";
    case Health::kWarn:
      return "warn";
    case Health::kBad:
      return "bad";
    case Health::kNone:
      return "none";
  }
  return "?";
}

int run_doctor(const Context& context) {
  const Machine machine{"", context.options.path.empty() ? "." : context.options.path};
  std::vector<Check> checks;
  check_kernel(machine, &checks);
  check_limits(machine, &checks);
  check_disk(machine, &checks);
  check_processors(machine, &checks);
  check_control(machine, &checks);
  std::vector<std::string> silent;
  const size_t running = context.runtimes(&silent).size();
  checks.push_back({"runtimes", silent.empty() ? Health::kOk : Health::kWarn,
                    fmt::format("{} answer, {} do not", running, silent.size()),
                    silent.empty() ? "" : harmless(silent.front())});

  const bool bad = std::any_of(checks.begin(), checks.end(),
                               [](const Check& c) { return c.health == Health::kBad; });
  int status = kExitOk;
  if (context.options.json) {
    Json lines = Json::array();
    for (const Check& c : checks) {
      lines.push_back({{"name", c.name},
                       {"verdict", health_name(c.health)},
                       {"found", c.found},
                       {"mend", c.mend}});
    }
    status = context.print(Json{{"ok", !bad}, {"checks", lines}});
  } else {
    std::string text;
    for (const Check& c : checks) {
      text += fmt::format("{:<5} {:<16} {}\n", health_name(c.health), c.name, harmless(c.found));
      if (!c.mend.empty()) {
        text += fmt::format("{:>22} {}\n", "mend:", harmless(c.mend));
      }
    }
    status = context.print(text);
  }
  return status == kExitOk && bad ? kExitRefused : status;
}

}  // namespace kvmm::ctl
