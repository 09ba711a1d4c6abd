#!/usr/bin/env bash
# clang refuses what touches a guarded member without its lock (core/thread_annotations.h), and nothing else: a check that cannot
# fail is none. Usage: thread_safety_test.sh SOURCE_DIR
set -euo pipefail
cd "$1"
command -v clang++-19 >/dev/null || {
    echo "thread_safety_test.sh: needs clang++-19" >&2
    exit 77
}

program='#include "core/mutex.h"
class Counter {
  public:
    void add() ECOPIPE_EXCLUDES(mutex_) {
        TAKE
        add_locked();
    }
    bool wait(ecopipe::Instant deadline) {
        ecopipe::MutexLock lock(mutex_);
        while (count_ == 0)
            if (!changed_.wait_until(mutex_, deadline) && count_ == 0) return false;
        PAUSE
        --count_;
        return true;
    }

  private:
    void add_locked() ECOPIPE_REQUIRES(mutex_) {
        ++count_;
        AGAIN
    }
    ecopipe::Mutex mutex_;
    ecopipe::ConditionVariable changed_;
    int count_ ECOPIPE_GUARDED_BY(mutex_) = 0;
};'
# expect accepted|refused WHAT MACRO...
expect() {
    local wanted=$1 what=$2 found=accepted said
    shift 2
    said=$(clang++-19 -std=c++20 -Wthread-safety -Werror -fsyntax-only -I. "$@" -x c++ - <<<"$program" 2>&1) || found=refused
    # Refused for another reason, it would show nothing.
    if [ $found = refused ] && ! grep -q 'error: .*-Wthread-safety-analysis' <<<"$said"; then found='not compiled'; fi
    [ "$found" = "$wanted" ] || {
        printf 'thread_safety_test.sh: %s: expected to be %s, found %s\n%s\n' "$what" "$wanted" "$found" "$said" >&2
        exit 1
    }
}
lock='ecopipe::MutexLock lock(mutex_);'
expect accepted 'what holds its lock' "-DTAKE=$lock" -DPAUSE= -DAGAIN=
expect accepted 'a lock that is taken again' "-DTAKE=$lock" '-DPAUSE=lock.unlock(); lock.lock();' -DAGAIN=
expect refused 'a call without the lock' -DTAKE= -DPAUSE= -DAGAIN=
expect refused 'a member after its lock was given away' "-DTAKE=$lock" '-DPAUSE=lock.unlock();' -DAGAIN=
expect refused 'a lock that is held already' "-DTAKE=$lock" -DPAUSE= '-DAGAIN=add();'
expect refused 'a wait without the lock' "-DTAKE=changed_.wait_until(mutex_, {}); $lock" -DPAUSE= -DAGAIN=
echo "clang refuses what lacks its lock, and nothing else"
