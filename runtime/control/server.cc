// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/control/action_thread.h"
#include "runtime/control/endpoint.h"
#include "runtime/thread.h"

namespace kvmm {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr size_t kReadBytes = 16 * 1024;
// What epoll calls the three descriptors that are no clients; clients are called by their id.
constexpr uint64_t kStopTag = 0;
constexpr uint64_t kWakeTag = 1;
constexpr uint64_t kAcceptTag = 2;
constexpr uint64_t kFirstClient = 3;
constexpr int kAcceptsPerRound = 64;  // a storm of newcomers does not keep clients waiting
constexpr int kAcceptPauseMs = 1000;  // out of descriptors: accept again after that

bool socket_peer(int fd, ucred* peer) {
  socklen_t length = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &length) == 0 && length == sizeof *peer;
}

struct Client {
  uint64_t id;
  OwnedFd fd;
  std::string in = {};        // bytes after the last complete line
  std::string out = {};       // rest of the reply
  size_t sent = 0;            // of `out`
  bool acting = false;        // its action runs; its reply comes later
  bool hang_up = false;       // close once `out` has been sent
  uint32_t watched = 0;       // what epoll waits for
  uint32_t events = 0;        // what epoll reported this round
  Clock::time_point moved{};  // last byte taken, or last line received

  bool sending() const { return sent < out.size(); }
};

}  // namespace

Result<void> ControlOptions::validate() const {
  if (clients_max < 1 || stall_ms < 1 || idle_ms < 1) {
    return Error(Errc::kInvalid, "control socket: limits must be positive");
  }
  return {};
}

class ControlServer::Impl {
 public:
  Impl(const AttrTree& tree, ControlOptions options, ControlSocket socket, OwnedFd epoll,
       OwnedFd stop, OwnedFd wake)
      : options_(std::move(options)),
        socket_(std::move(socket)),
        epoll_(std::move(epoll)),
        stop_(std::move(stop)),
        wake_(std::move(wake)),
        owner_(getpid()),
        actions_(wake_.get()) {
    context_.tree = &tree;
    context_.trace = options_.trace;
    context_.actions = options_.actions;
    context_.name = options_.name;
    context_.version = options_.version;
    context_.pid = owner_;
    if (!options_.peer_of) {
      options_.peer_of = socket_peer;
    }
  }

  // False: the kernel has no memory for it.
  bool launch() {
    if (!watch(stop_.get(), kStopTag, EPOLLIN, EPOLL_CTL_ADD) ||
        !watch(wake_.get(), kWakeTag, EPOLLIN, EPOLL_CTL_ADD) ||
        !watch(socket_.fd.get(), kAcceptTag, EPOLLIN, EPOLL_CTL_ADD)) {
      return false;
    }
    thread_ = start_thread("kvmm-ctl", [this] { run(); });
    return true;
  }

  void stop() {
    remove_control_socket(socket_.path);
    const uint64_t one = 1;
    check(write(stop_.get(), &one, sizeof one) == sizeof one, "the control thread is told to stop");
    thread_.join();
  }

  pid_t owner() const { return owner_; }
  const std::string& path() const { return socket_.path; }

 private:
  void run();
  int wait_ms(Clock::time_point now) const;
  // False: the kernel has no memory for it.
  bool watch(int fd, uint64_t tag, uint32_t events, int operation);
  void watch_changes(Clock::time_point now);
  std::vector<Client>::iterator find(uint64_t id);
  void accept_clients(Clock::time_point now);
  void admit(OwnedFd fd, Clock::time_point now);
  bool make_room(Clock::time_point now);
  // These answer whether the client stays.
  bool serve(Client& client, Clock::time_point now);
  bool read_from(Client& client);
  bool write_to(Client& client, Clock::time_point now);
  bool take_line(Client& client, Clock::time_point now);
  void handle(Client& client, std::string_view line);
  void finish_actions(Clock::time_point now);
  std::string answer(const ControlRequest& request) const;

  // constant after construction
  ControlOptions options_;
  ControlContext context_;
  ControlSocket socket_;
  OwnedFd epoll_;  // not poll(2): an engine may lower its limit of descriptors below our number
  OwnedFd stop_;   // eventfd: end the loop
  OwnedFd wake_;   // eventfd: an action has finished
  const pid_t owner_;

  // the control thread's own
  std::vector<Client> clients_;
  uint64_t next_id_ = kFirstClient;
  uint32_t accept_watched_ = EPOLLIN;
  std::optional<Clock::time_point> accept_after_;
  ActionThread actions_;

  std::thread thread_;
};

void ControlServer::Impl::run() {
  std::array<epoll_event, 32> events{};
  while (true) {
    watch_changes(Clock::now());
    const int n = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                             wait_ms(Clock::now()));
    check(n >= 0 || errno == EINTR, "the control socket's epoll");
    const Clock::time_point now = Clock::now();
    bool accept = false;
    bool finished = false;
    for (Client& client : clients_) {
      client.events = 0;
    }
    for (const epoll_event& event : std::span(events).first(static_cast<size_t>(std::max(n, 0)))) {
      switch (event.data.u64) {
        case kStopTag:
          return;
        case kWakeTag:
          finished = true;
          break;
        case kAcceptTag:
          accept = true;
          break;
        default:
          if (const auto it = find(event.data.u64); it != clients_.end()) {
            it->events = event.events;
          }
      }
    }
    for (size_t i = clients_.size(); i-- > 0;) {
      if (!serve(clients_[i], now)) {
        clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(i));
      }
    }
    if (finished) {
      finish_actions(now);
    }
    if (accept) {
      accept_clients(now);
    }
  }
}

bool ControlServer::Impl::watch(int fd, uint64_t tag, uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  const bool done = epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
  check(done || errno == ENOMEM || errno == ENOSPC, "the control socket's epoll_ctl");
  return done;
}

// Tells epoll what each client is waited for now.
void ControlServer::Impl::watch_changes(Clock::time_point now) {
  const uint32_t accepting = !accept_after_ || now >= *accept_after_ ? uint32_t{EPOLLIN} : 0u;
  if (accepting != accept_watched_ &&
      watch(socket_.fd.get(), kAcceptTag, accepting, EPOLL_CTL_MOD)) {
    accept_watched_ = accepting;
  }
  for (Client& client : clients_) {
    // One at a time: nothing is read from a client that has not taken its reply.
    const uint32_t wanted = client.sending() ? uint32_t{EPOLLOUT}
                            : client.acting  ? 0u
                                             : uint32_t{EPOLLIN};
    if (wanted != client.watched && watch(client.fd.get(), client.id, wanted, EPOLL_CTL_MOD)) {
      client.watched = wanted;
    }
  }
}

std::vector<Client>::iterator ControlServer::Impl::find(uint64_t id) {
  return std::find_if(clients_.begin(), clients_.end(),
                      [id](const Client& c) { return c.id == id; });
}

// When the next client stalls, or accept is tried again; -1: nothing to wait for but events.
int ControlServer::Impl::wait_ms(Clock::time_point now) const {
  std::optional<Clock::time_point> next;
  if (accept_after_ && now < *accept_after_) {
    next = accept_after_;
  }
  for (const Client& client : clients_) {
    const Clock::time_point end = client.moved + Milliseconds(options_.stall_ms);
    if (client.sending() && (!next || end < *next)) {
      next = end;
    }
    // A whole line is waiting already: go round at once.
    if (!client.sending() && !client.acting && client.in.find('\n') != std::string::npos) {
      return 0;
    }
  }
  if (!next) {
    return -1;
  }
  const auto left = std::chrono::ceil<Milliseconds>(*next - now).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, std::numeric_limits<int>::max()));
}

void ControlServer::Impl::accept_clients(Clock::time_point now) {
  accept_after_.reset();
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    OwnedFd fd(accept4(socket_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // The engine has used up its descriptors: do not spin on a queue that cannot be emptied.
        accept_after_ = now + Milliseconds(kAcceptPauseMs);
      }
      return;
    }
    admit(std::move(fd), now);
  }
}

void ControlServer::Impl::admit(OwnedFd fd, Clock::time_point now) {
  ucred peer{};
  const auto refuse = [&fd](const Error& error) {
    // Fits the empty send buffer of a new socket; a peer that does not read it loses only this.
    const std::string line = error_reply(error);
    [[maybe_unused]] const ssize_t n =
        send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  };
  if (!options_.peer_of(fd.get(), &peer) || (peer.uid != 0 && peer.uid != geteuid())) {
    refuse(Error(Errc::kPermission, "only this process's user and root are served"));
    return;
  }
  if (!make_room(now)) {
    refuse(Error(Errc::kLimit, "this runtime serves " + std::to_string(options_.clients_max) +
                                   " clients already"));
    return;
  }
  Client client{.id = next_id_++, .fd = std::move(fd)};
  client.moved = now;
  client.watched = EPOLLIN;
  if (watch(client.fd.get(), client.id, EPOLLIN, EPOLL_CTL_ADD)) {
    clients_.push_back(std::move(client));
  }
}

bool ControlServer::Impl::make_room(Clock::time_point now) {
  if (clients_.size() < static_cast<size_t>(options_.clients_max)) {
    return true;
  }
  const auto silent =
      std::min_element(clients_.begin(), clients_.end(), [](const Client& a, const Client& b) {
        return std::pair(a.acting, a.moved) < std::pair(b.acting, b.moved);
      });
  if (silent->acting || now - silent->moved < Milliseconds(options_.idle_ms)) {
    return false;
  }
  clients_.erase(silent);
  return true;
}

bool ControlServer::Impl::serve(Client& client, Clock::time_point now) {
  const uint32_t events = client.events;
  if ((events & EPOLLERR) != 0) {
    return false;
  }
  if (client.sending()) {
    if ((events & EPOLLHUP) != 0) {
      return false;
    }
    if ((events & EPOLLOUT) == 0) {
      return now - client.moved < Milliseconds(options_.stall_ms);
    }
    return write_to(client, now);
  }
  if (client.acting) {
    return (events & EPOLLHUP) == 0;  // gone: the action ends, its reply finds nobody
  }
  const bool has_line = client.in.find('\n') != std::string::npos;
  if (!has_line && (events & (EPOLLIN | EPOLLHUP)) != 0 && !read_from(client)) {
    return false;
  }
  return take_line(client, now);
}

bool ControlServer::Impl::read_from(Client& client) {
  char buffer[kReadBytes];
  const size_t room = kControlLineMax + 1 - std::min(client.in.size(), kControlLineMax);
  const ssize_t n = recv(client.fd.get(), buffer, std::min(sizeof buffer, room), MSG_DONTWAIT);
  if (n == 0) {
    return false;
  }
  if (n < 0) {
    return errno == EAGAIN || errno == EINTR;
  }
  client.in.append(buffer, static_cast<size_t>(n));
  return true;
}

// Answers one complete line, if there is one.
bool ControlServer::Impl::take_line(Client& client, Clock::time_point now) {
  const size_t end = client.in.find('\n');
  if (end == std::string::npos && client.in.size() < kControlLineMax) {
    return true;
  }
  client.moved = now;
  if (end == std::string::npos || end >= kControlLineMax) {
    client.out = error_reply(Error(Errc::kLimit, "a request is at most 65,536 bytes long"));
    client.in.clear();
    client.hang_up = true;  // where the next request begins is unknown
  } else {
    std::string_view line(client.in.data(), end);
    if (!line.empty() && line.back() == '\r') {
      line.remove_suffix(1);
    }
    handle(client, line);
    client.in.erase(0, end + 1);
  }
  return write_to(client, now);
}

void ControlServer::Impl::handle(Client& client, std::string_view line) {
  try {
    Result<ControlRequest> request = parse_request(line);
    if (!request) {
      client.out = error_reply(request.error());
      return;
    }
    if (request->op == ControlOp::kCall) {
      client.acting = true;
      actions_.submit(client.id, [this, r = std::move(*request)] { return answer(r); });
      return;
    }
    client.out = answer(*request);
  } catch (const std::exception& e) {  // no memory, no thread: the engine's process lives on
    client.acting = false;
    client.out = error_reply(Error(Errc::kNoMemory, e.what()));
  }
}

std::string ControlServer::Impl::answer(const ControlRequest& request) const {
  try {
    return answer_request(context_, request);
  } catch (const std::exception& e) {
    return error_reply(Error(Errc::kNoMemory, e.what()));
  }
}

bool ControlServer::Impl::write_to(Client& client, Clock::time_point now) {
  while (client.sending()) {
    const ssize_t n = send(client.fd.get(), client.out.data() + client.sent,
                           client.out.size() - client.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      return errno == EAGAIN || errno == EINTR;
    }
    client.sent += static_cast<size_t>(n);
    client.moved = now;
  }
  client.out = std::string();  // gives the memory back
  client.sent = 0;
  return !client.hang_up;
}

void ControlServer::Impl::finish_actions(Clock::time_point now) {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = read(wake_.get(), &count, sizeof count);
  for (ActionThread::Finished& done : actions_.take_finished()) {
    const auto it = find(done.client);
    if (it == clients_.end()) {
      continue;
    }
    it->acting = false;
    it->out = std::move(done.reply);
    it->moved = now;
    if (!write_to(*it, now)) {
      clients_.erase(it);
    }
  }
}

Result<std::unique_ptr<ControlServer>> ControlServer::start(const AttrTree& tree,
                                                            ControlOptions options) {
  if (Result<void> ok = options.validate(); !ok) {
    return std::move(ok).error();
  }
  OwnedFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  OwnedFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  OwnedFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!stop || !wake || !epoll) {
    return Error(Errc::kLimit, "control socket: no descriptor; raise ulimit -n", errno);
  }
  const std::vector<std::string> directories =
      options.directory.empty() ? control_directories() : std::vector{options.directory};
  Result<ControlSocket> socket = Error(Errc::kNotFound, "no directory for the control socket");
  for (const std::string& directory : directories) {
    socket = make_control_socket(directory);
    if (socket) {
      break;
    }
  }
  if (!socket) {
    return std::move(socket).error();
  }
  const std::string path = socket->path;
  auto impl = std::make_unique<Impl>(tree, std::move(options), std::move(*socket), std::move(epoll),
                                     std::move(stop), std::move(wake));
  try {
    if (!impl->launch()) {
      remove_control_socket(path);
      return Error(Errc::kNoMemory, "control socket: cannot be watched");
    }
  } catch (const std::runtime_error& e) {
    remove_control_socket(path);
    return Error(Errc::kLimit, std::string("control socket: ") + e.what());
  }
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(impl)));
}

ControlServer::ControlServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ControlServer::~ControlServer() {
  if (impl_->owner() != getpid()) {
    // A forked child: the threads are not here, and the socket belongs to the parent.
    [[maybe_unused]] Impl* const leaked = impl_.release();
    return;
  }
  impl_->stop();
}

const std::string& ControlServer::path() const {
  return impl_->path();
}

}  // namespace kvmm
