// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/llama/config.h"

#include <gtest/gtest.h>

#include <map>

namespace kvmm::llama {
namespace {

std::map<std::string, std::string> variables;

const char* look_up(const char* name) {
  const auto found = variables.find(name);
  return found == variables.end() ? nullptr : found->second.c_str();
}

std::string error_of(std::map<std::string, std::string> set) {
  variables = std::move(set);
  Config config;
  config.name = "before";
  std::string error;
  EXPECT_FALSE(read_config(look_up, &config, &error));
  EXPECT_EQ(config.name, "before") << "a refused configuration changes nothing";
  return error;
}

TEST(ParseBytes, ReadsUnits) {
  EXPECT_EQ(parse_bytes("0"), 0u);
  EXPECT_EQ(parse_bytes("4096"), 4096u);
  EXPECT_EQ(parse_bytes("64K"), 65536u);
  EXPECT_EQ(parse_bytes("32M"), 33554432u);
  EXPECT_EQ(parse_bytes("2G"), 2147483648u);
  EXPECT_EQ(parse_bytes("18446744073709551615"), 18446744073709551615u);
}

TEST(ParseBytes, RefusesEverythingElse) {
  for (const char* text : {"", "K", "-1", "+1", " 1", "1 ", "1KB", "1k", "0x10", "1.5G",
                           "18446744073709551616", "18014398509481984K", "99999999999G"}) {
    EXPECT_FALSE(parse_bytes(text).has_value()) << text;
  }
}

TEST(ParseModelId, ReadsBothCases) {
  const auto id = parse_model_id("00fF" + std::string(60, 'a'));
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ((*id)[0], 0x00);
  EXPECT_EQ((*id)[1], 0xff);
  EXPECT_EQ((*id)[31], 0xaa);
}

TEST(ParseModelId, RefusesOtherLengthsAndDigits) {
  EXPECT_FALSE(parse_model_id("").has_value());
  EXPECT_FALSE(parse_model_id(std::string(63, 'a')).has_value());
  EXPECT_FALSE(parse_model_id(std::string(65, 'a')).has_value());
  EXPECT_FALSE(parse_model_id(std::string(63, 'a') + "g").has_value());
}

TEST(ReadConfig, NothingSetIsTheDefault) {
  variables.clear();
  Config config;
  std::string error;
  ASSERT_TRUE(read_config(look_up, &config, &error)) << error;
  EXPECT_FALSE(config.model_id.has_value());
  EXPECT_EQ(config.dram_bytes, 0u);
  EXPECT_EQ(config.swap_path, "");
  EXPECT_EQ(config.page_size, 0u);
  EXPECT_EQ(config.frames, "movable");
  EXPECT_EQ(config.name, "llama.cpp");
}

TEST(ReadConfig, ReadsAllOfThem) {
  variables = {{"KVMM_MODEL_ID", std::string(64, '1')},
               {"KVMM_DRAM_BYTES", "32M"},
               {"KVMM_SWAP_PATH", "/tmp/s"},
               {"KVMM_SWAP_BYTES", "1G"},
               {"KVMM_SWAP_DRIVER", "/tmp/d.so"},
               {"KVMM_LLAMA_PAGE_SIZE", "64K"},
               {"KVMM_FRAMES", "shareable"},
               {"KVMM_LLAMA_NAME", "demo"}};
  Config config;
  std::string error;
  ASSERT_TRUE(read_config(look_up, &config, &error)) << error;
  ASSERT_TRUE(config.model_id.has_value());
  EXPECT_EQ((*config.model_id)[7], 0x11);
  EXPECT_EQ(config.dram_bytes, 32u << 20);
  EXPECT_EQ(config.swap_path, "/tmp/s");
  EXPECT_EQ(config.swap_bytes, 1u << 30);
  EXPECT_EQ(config.swap_driver, "/tmp/d.so");
  EXPECT_EQ(config.page_size, 65536u);
  EXPECT_EQ(config.frames, "shareable");
  EXPECT_EQ(config.name, "demo");
}

TEST(ReadConfig, ErrorsNameTheVariable) {
  EXPECT_NE(error_of({{"KVMM_DRAM_BYTES", "lots"}}).find("KVMM_DRAM_BYTES=lots"),
            std::string::npos);
  EXPECT_NE(error_of({{"KVMM_SWAP_BYTES", "-1"}}).find("KVMM_SWAP_BYTES=-1"), std::string::npos);
  EXPECT_NE(error_of({{"KVMM_MODEL_ID", "abc"}}).find("KVMM_MODEL_ID"), std::string::npos);
  EXPECT_NE(error_of({{"KVMM_FRAMES", "huge"}}).find("KVMM_FRAMES=huge"), std::string::npos);
  for (const char* size : {"2K", "4M", "65535", "96K"}) {
    EXPECT_NE(error_of({{"KVMM_LLAMA_PAGE_SIZE", size}}).find("KVMM_LLAMA_PAGE_SIZE"),
              std::string::npos)
        << size;
  }
}

}  // namespace
}  // namespace kvmm::llama
