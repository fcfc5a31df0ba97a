// SPDX-License-Identifier: Apache-2.0
//
// The checksum that only this page with these bytes has. It is on disk and may be computed on
// another device: the golden value holds its definition.
#include "vmm/identity.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <functional>
#include <set>
#include <vector>

namespace kvmm {
namespace {

const PageIdentity kId{0x1111111111111111, 0x2222222222222222, 0x3333333333333333,
                       0x4444444444444444, 0x55555555,         0x66666666};

std::vector<uint64_t> digests_of(const std::vector<std::byte>& page) {
  std::vector<uint64_t> digests;
  for (size_t at = 0; at < page.size(); at += kPieceSize.value()) {
    digests.push_back(piece_digest(
        std::span(page).subspan(at, std::min<size_t>(kPieceSize.value(), page.size() - at))));
  }
  return digests;
}

std::vector<std::byte> page_of(Bytes size) {
  std::vector<std::byte> page(size.value());
  for (size_t i = 0; i < page.size(); ++i) {
    page[i] = static_cast<std::byte>(i * 7 + i / 4096);
  }
  return page;
}

TEST(Identity, ThePiecesOfAPage) {
  EXPECT_EQ(piece_count(kib(4)), 1u);
  EXPECT_EQ(piece_count(kib(32)), 1u);
  EXPECT_EQ(piece_count(kib(64)), 1u);
  EXPECT_EQ(piece_count(kib(128)), 2u);
  EXPECT_EQ(piece_count(mib(2)), 32u);
  EXPECT_EQ(kMaxPieces, 32u);
  EXPECT_EQ(digests_of(page_of(kib(4))).size(), piece_count(kib(4)));
  EXPECT_EQ(digests_of(page_of(mib(2))).size(), piece_count(mib(2)));
}

// XXH3-64 over the digests and the five words of the identity, little-endian, in one buffer.
TEST(Identity, TheDefinitionByHand) {
  for (const Bytes size : {kib(4), kib(64), mib(2)}) {
    const std::vector<std::byte> page = page_of(size);
    std::vector<uint64_t> words;
    for (size_t at = 0; at < page.size(); at += 65536) {
      words.push_back(XXH3_64bits(page.data() + at, std::min<size_t>(65536, page.size() - at)));
    }
    for (const uint64_t w : {kId.model, kId.layout, kId.owner, kId.object}) {
      words.push_back(w);
    }
    words.push_back(0x5555555566666666);
    EXPECT_EQ(page_checksum(digests_of(page), kId), XXH3_64bits(words.data(), words.size() * 8))
        << size.value();
  }
}

// Taken with another implementation of XXH3 (Python's xxhash), not with this one.
TEST(Identity, GoldenValues) {
  EXPECT_EQ(page_checksum(digests_of(page_of(kib(4))), kId), 0xf49f07f6d811565cu);
  EXPECT_EQ(page_checksum(digests_of(page_of(mib(2))), kId), 0xc2e4fd1ea04b21dbu);
}

TEST(Identity, EachFieldChangesTheChecksum) {
  const std::vector<uint64_t> digests = digests_of(page_of(kib(128)));
  const std::vector<std::function<void(PageIdentity&)>> changes = {
      [](PageIdentity& i) { ++i.model; },
      [](PageIdentity& i) { ++i.layout; },
      [](PageIdentity& i) { ++i.owner; },
      [](PageIdentity& i) { ++i.object; },
      [](PageIdentity& i) { ++i.page; },
      [](PageIdentity& i) { ++i.generation; },
      [](PageIdentity& i) { std::swap(i.page, i.generation); },
      [](PageIdentity& i) { std::swap(i.owner, i.object); },
  };
  std::set<uint64_t> sums{page_checksum(digests, kId)};
  for (const auto& change : changes) {
    PageIdentity id = kId;
    change(id);
    sums.insert(page_checksum(digests, id));
  }
  EXPECT_EQ(sums.size(), changes.size() + 1);
}

TEST(Identity, AnyByteAndTheOrderOfPiecesChangeTheChecksum) {
  std::vector<std::byte> page = page_of(kib(128));
  const uint64_t sum = page_checksum(digests_of(page), kId);
  for (const size_t at : {size_t{0}, size_t{65535}, size_t{65536}, page.size() - 1}) {
    page[at] ^= std::byte{1};
    EXPECT_NE(page_checksum(digests_of(page), kId), sum) << at;
    page[at] ^= std::byte{1};
  }
  std::vector<uint64_t> digests = digests_of(page);
  ASSERT_EQ(page_checksum(digests, kId), sum);
  std::swap(digests[0], digests[1]);
  EXPECT_NE(page_checksum(digests, kId), sum);
}

}  // namespace
}  // namespace kvmm
