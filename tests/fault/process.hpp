// Forked processes, and signals between them. Fork only from a process with one thread.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <stdexcept>

namespace smlora::testing {

/// A forked process that runs `body`; it is killed at the end if it still lives.
class Process {
 public:
    explicit Process(const std::function<int()>& body) : pid_(::fork()) {
        if (pid_ != 0) return;
        int code = 99;
        try {
            code = body();
        } catch (...) {
        }
        ::_exit(code);
    }
    ~Process() {
        if (pid_ > 0) {
            kill();
            wait();
        }
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    void kill() const { ::kill(pid_, SIGKILL); }
    void stop() const { ::kill(pid_, SIGSTOP); }
    /// Asks it to end.
    void end() const { ::kill(pid_, SIGTERM); }
    /// The exit code, or the negated signal that ended it.
    int wait() {
        int status = 0;
        ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }

 private:
    ::pid_t pid_;
};

/// Processes signal each other through it: one byte each time.
class Signal {
 public:
    Signal() {
        if (::pipe(ends_) != 0) throw std::runtime_error("pipe");
    }
    ~Signal() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

    void give(int times = 1) const {
        for (int i = 0; i < times; ++i) {
            if (::write(ends_[1], "x", 1) != 1) ::_exit(98);
        }
    }
    void take() const {
        char byte;
        if (::read(ends_[0], &byte, 1) != 1) ::_exit(97);
    }

 private:
    int ends_[2];
};

}  // namespace smlora::testing
