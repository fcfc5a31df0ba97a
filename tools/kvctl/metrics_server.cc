// SPDX-License-Identifier: Apache-2.0
//
// metrics --listen: a small HTTP server for scrapers on this machine, in a process of its own.
//
//   scraper --GET /metrics--> [ one thread, poll ] --control sockets--> runtimes
//
// Invariants
//   1. Bounded: kConnectionsMax connections, kRequestMax bytes of each; when all places are taken
//      the oldest gives up its own.
//   2. A connection lasts kLifetime at most, whether its scraper sends, reads, or does neither.
//   3. Runtimes are asked at most once in kFresh, however many scrape.
//   4. Only loopback addresses are bound: there is no encryption and nobody is asked who he is.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/kvctl/metrics.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/stop.h"

namespace kvmm::ctl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kConnectionsMax = 32;
constexpr size_t kRequestMax = 8 * 1024;
constexpr auto kLifetime = std::chrono::seconds(5);
constexpr auto kFresh = std::chrono::seconds(1);
constexpr int kRuntimeTimeoutMs = 2000;  // a silent runtime does not keep the others from a scrape

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

Result<Address> parse_address(const std::string& text) {
  const Error no(Errc::kInvalid,
                 "'" + harmless(text) +
                     "' is no loopback address with a port: metrics are served at 127.0.0.1:PORT "
                     "or [::1]:PORT only. For other machines put a proxy before it that knows whom "
                     "to let in");
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) {
    return no;
  }
  uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [at, failed] = std::from_chars(text.data() + colon + 1, end, port);
  if (failed != std::errc() || at != end || colon + 1 == text.size()) {
    return no;
  }
  const std::string host = text.substr(0, colon);
  Address address;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1 &&
      ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&address.storage, &v4, sizeof v4);
    address.length = sizeof v4;
    return address;
  }
  if (host == "[::1]") {
    v6.sin6_family = AF_INET6;
    v6.sin6_addr = in6addr_loopback;
    v6.sin6_port = htons(port);
    std::memcpy(&address.storage, &v6, sizeof v6);
    address.length = sizeof v6;
    return address;
  }
  return no;
}

Result<OwnedFd> listen_at(Address* address, const std::string& text) {
  OwnedFd fd(socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->length) != 0 ||
      listen(fd.get(), SOMAXCONN) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address->storage), &address->length) !=
          0) {
    return Error(
        errno == EADDRINUSE ? Errc::kBusy : Errc::kIo,
        text + (errno == EADDRINUSE ? ": is in use: take another port" : ": cannot be listened at"),
        errno);
  }
  return fd;
}

std::string url_of(const Address& address) {
  if (address.storage.ss_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address.storage, sizeof v6);
    return fmt::format("http://[::1]:{}/metrics", ntohs(v6.sin6_port));
  }
  sockaddr_in v4{};
  std::memcpy(&v4, &address.storage, sizeof v4);
  char host[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
  return fmt::format("http://{}:{}/metrics", host, ntohs(v4.sin_port));
}

struct Connection {
  OwnedFd fd;
  Clock::time_point end;
  std::string in = {};
  std::string out = {};
  size_t sent = 0;

  bool sending() const { return !out.empty(); }
};

std::string response(int status, const char* reason, const char* type, const std::string& body,
                     bool with_body, const char* more = "") {
  return fmt::format(
             "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: "
             "close\r\n\r\n",
             status, reason, type, body.size(), more) +
         (with_body ? body : "");
}

std::string refusal(int status, const char* reason, const char* more = "") {
  return response(status, reason, "text/plain; charset=utf-8", std::string(reason) + "\n", true,
                  more);
}

class MetricsServer {
 public:
  MetricsServer(Options options, OwnedFd listener, const Stop& stop)
      : context_(std::move(options)), listener_(std::move(listener)), stop_(stop) {}

  void run() {
    while (step()) {
    }
  }

 private:
  // False: told to end.
  bool step() {
    std::vector<pollfd> fds = {{stop_.fd(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    Clock::time_point first = Clock::now() + kLifetime;
    for (const Connection& c : connections_) {
      fds.push_back({c.fd.get(), static_cast<short>(c.sending() ? POLLOUT : POLLIN), 0});
      first = std::min(first, c.end);
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(first - Clock::now()).count();
    poll(fds.data(), fds.size(),
         connections_.empty() ? -1 : static_cast<int>(std::max<int64_t>(left, 0)));
    if (fds[0].revents != 0) {
      return false;
    }
    size_t i = 2;
    for (auto it = connections_.begin(); it != connections_.end(); ++i) {
      const bool stays = Clock::now() < it->end && (fds[i].revents == 0 || serve(*it));
      it = stays ? std::next(it) : connections_.erase(it);
    }
    if (fds[1].revents != 0) {
      accept_some();
    }
    return true;
  }

  void accept_some() {
    for (size_t i = 0; i < kConnectionsMax; ++i) {
      OwnedFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd) {
        return;
      }
      if (connections_.size() == kConnectionsMax) {
        connections_.pop_front();
      }
      connections_.push_back({std::move(fd), Clock::now() + kLifetime});
    }
  }

  // Whether the connection stays.
  bool serve(Connection& c) {
    if (!c.sending()) {
      char piece[4096];
      const ssize_t n = recv(c.fd.get(), piece, sizeof piece, 0);
      if (n <= 0) {
        return n < 0 && (errno == EAGAIN || errno == EINTR);
      }
      c.in.append(piece, static_cast<size_t>(n));
      if (c.in.find("\r\n\r\n") != std::string::npos || c.in.find("\n\n") != std::string::npos) {
        c.out = answer(c.in);
      } else if (c.in.size() > kRequestMax) {
        c.out = refusal(431, "Request Header Fields Too Large");
      } else {
        return true;
      }
    }
    const ssize_t n =
        send(c.fd.get(), c.out.data() + c.sent, c.out.size() - c.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      return errno == EAGAIN || errno == EINTR;
    }
    c.sent += static_cast<size_t>(n);
    if (c.sent < c.out.size()) {
      return true;
    }
    shutdown(c.fd.get(), SHUT_WR);
    return false;
  }

  std::string answer(const std::string& request) {
    const std::string line = request.substr(0, request.find_first_of("\r\n"));
    const size_t first = line.find(' ');
    const size_t last = line.rfind(' ');
    if (first == std::string::npos || first == last || line.compare(last + 1, 5, "HTTP/") != 0) {
      return refusal(400, "Bad Request");
    }
    const std::string method = line.substr(0, first);
    std::string path = line.substr(first + 1, last - first - 1);
    path.resize(std::min(path.size(), path.find('?')));
    if (method != "GET" && method != "HEAD") {
      return refusal(405, "Method Not Allowed", "Allow: GET, HEAD\r\n");
    }
    if (path == "/") {
      return response(200, "OK", "text/plain; charset=utf-8", "kvmm: /metrics has them\n",
                      method == "GET");
    }
    if (path != "/metrics") {
      return refusal(404, "Not Found");
    }
    return response(200, "OK", kMetricsType, text(), method == "GET");
  }

  const std::string& text() {
    const Clock::time_point now = Clock::now();
    if (!collected_ || now - *collected_ >= kFresh) {
      text_ = collect_all(context_).text();
      collected_ = Clock::now();
    }
    return text_;
  }

  const Context context_;
  OwnedFd listener_;
  const Stop& stop_;
  std::list<Connection> connections_;  // oldest first
  std::optional<Clock::time_point> collected_;
  std::string text_;
};

}  // namespace

int serve_metrics(const Context& context) {
  Result<Address> address = parse_address(context.options.listen);
  if (!address) {
    return context.fail(kExitUsage, address.error().detail);
  }
  const Stop stop;
  Result<OwnedFd> listener = listen_at(&*address, context.options.listen);
  if (!listener) {
    return context.fail(listener.error());
  }
  const std::string url = url_of(*address);
  const int printed = context.options.json ? context.print(nlohmann::ordered_json{{"url", url}})
                                           : context.print("serving " + url + "\n");
  if (printed != kExitOk) {
    return printed;
  }
  Options options = context.options;
  options.timeout_ms = std::min(options.timeout_ms, kRuntimeTimeoutMs);
  MetricsServer(std::move(options), std::move(*listener), stop).run();
  return kExitOk;
}

}  // namespace kvmm::ctl
