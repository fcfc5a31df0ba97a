// SPDX-License-Identifier: Apache-2.0
//
// Config directories that are wrong: the opening stops and says which line of which file.
#include <sys/stat.h>
#include <unistd.h>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class ConfigFile : public ApiTest {
 protected:
  kvmm_status open_with(const std::string& text) {
    write_file(folder_.file("50-test.conf"), text);
    Options o;
    o.config_dir = folder_.path();
    World w;
    return w.open(o);
  }
  const std::string file_ = folder_.file("50-test.conf");
};

TEST_F(ConfigFile, EachMistakeIsNamedWithFileAndLine) {
  EXPECT_REFUSED(open_with("# first\nsched/no_such = 3\n"), KVMM_ENOTFOUND, file_ + ":2",
                 "'no_such' in sched");
  EXPECT_REFUSED(open_with("sched/readahead_max = 3 parsecs\n"), KVMM_EINVALID, file_ + ":1");
  EXPECT_REFUSED(open_with("\n\nsched/readahead_max = 4TiB\n"), KVMM_ERANGE, file_ + ":3", "64");
  EXPECT_REFUSED(open_with("tiers/dram/capacity = 4KiB\n"), KVMM_ERANGE, file_ + ":1");
  EXPECT_REFUSED(open_with("tiers/dram/capacity = lots\n"), KVMM_EINVALID, file_ + ":1");
  EXPECT_REFUSED(open_with("tiers/hbm/capacity = 4GiB\n"), KVMM_ENOTFOUND, file_ + ":1");
  EXPECT_REFUSED(open_with("version = 9\n"), KVMM_EPERMISSION, file_ + ":1");
  EXPECT_REFUSED(open_with("no equals sign\n"), KVMM_EINVALID, file_ + ":1");
  EXPECT_REFUSED(open_with("tiers/dram/watermark_min = 4GiB\n"), KVMM_ERANGE, file_ + ":1",
                 "min <= low");
  EXPECT_EQ(open_with("sched/readahead_max = 2MiB\n"), KVMM_OK) << kvmm_last_error();
}

TEST_F(ConfigFile, WhatIsNoFileOrNoFolder) {
  Options o;
  o.config_dir = folder_.file("none");
  {
    World w;
    EXPECT_REFUSED(w.open(o), KVMM_ENOTFOUND, o.config_dir);
  }
  o.config_dir = folder_.path();
  ASSERT_EQ(mkfifo(file_.c_str(), 0600), 0);
  {
    World w;
    EXPECT_REFUSED(w.open(o), KVMM_EINVALID, file_);
  }
  ASSERT_EQ(unlink(file_.c_str()), 0);
  ASSERT_EQ(symlink(file_.c_str(), file_.c_str()), 0);
  {
    World w;
    EXPECT_REFUSED(w.open(o), KVMM_EIO, file_);
  }
  ASSERT_EQ(unlink(file_.c_str()), 0);
  EXPECT_EQ(open_with(std::string(2 << 20, '#')), KVMM_ELIMIT) << kvmm_last_error();
}

TEST_F(ConfigFile, AttributesRefuseTheSameAndKeepTheirValue) {
  World w;
  ASSERT_KVMM_OK(w.open(Options()));
  char before[64] = "";
  ASSERT_KVMM_OK(kvmm_attr_get(w.runtime(), "sched/readahead_max", before, sizeof before));
  const struct {
    const char* path;
    const char* value;
    kvmm_status status;
  } kCases[] = {{"sched/readahead_max", "3 parsecs", KVMM_EINVALID},
                {"sched/readahead_max", "-1", KVMM_EINVALID},
                {"sched/readahead_max", "", KVMM_EINVALID},
                {"sched/readahead_max", "4TiB", KVMM_ERANGE},
                {"sched/readahead_max", "999999999999999999999999", KVMM_ERANGE},
                {"sched/no_such", "1", KVMM_ENOTFOUND},
                {"../../etc/passwd", "1", KVMM_ENOTFOUND},
                {"", "1", KVMM_ENOTFOUND},
                {"/", "1", KVMM_ENOTFOUND},
                {"version", "1", KVMM_EPERMISSION}};
  for (const auto& c : kCases) {
    EXPECT_EQ(kvmm_attr_set(w.runtime(), c.path, c.value), c.status)
        << c.path << "=" << c.value << ": " << kvmm_last_error();
    EXPECT_STRNE(kvmm_last_error(), "");
  }
  char after[64] = "";
  ASSERT_KVMM_OK(kvmm_attr_get(w.runtime(), "sched/readahead_max", after, sizeof after));
  EXPECT_STREQ(after, before);
  char two[2] = {'x', 'x'};
  EXPECT_KVMM_OK(kvmm_attr_get(w.runtime(), "name", two, sizeof two));
  EXPECT_STREQ(two, "a") << "cut, and ended";
}

}  // namespace
}  // namespace kvmm_api
