#pragma once
// Which lock guards what, told to the compiler: clang's -Wthread-safety, an error here, refuses
// what touches a guarded member without its lock. GCC knows no such thing; there they are nothing.
//
// A comment that says "guarded by mutex_" is right on the day it is written. ThreadSanitizer finds
// a lock that is missing only where a test makes two threads meet. This is checked at every line
// (but in constructors and destructors, whose object is one thread's) and costs nothing at run
// time. Hutchins, Ballman, Sutherland, "C/C++ thread safety analysis", SCAM 2014;
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html. core/mutex.h has the locks.

#ifdef __clang__
#define ECOPIPE_THREAD_ATTRIBUTE(attribute) __attribute__((attribute))
#else
#define ECOPIPE_THREAD_ATTRIBUTE(attribute)
#endif

// A member: read and written with the lock held alone.
#define ECOPIPE_GUARDED_BY(mutex) ECOPIPE_THREAD_ATTRIBUTE(guarded_by(mutex))
// A function: its caller holds the lock; its caller must not, for it takes it.
#define ECOPIPE_REQUIRES(...) ECOPIPE_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define ECOPIPE_EXCLUDES(...) ECOPIPE_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

// What core/mutex.h is made of.
#define ECOPIPE_CAPABILITY(name) ECOPIPE_THREAD_ATTRIBUTE(capability(name))
#define ECOPIPE_SCOPED_CAPABILITY ECOPIPE_THREAD_ATTRIBUTE(scoped_lockable)
#define ECOPIPE_ACQUIRE(...) ECOPIPE_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define ECOPIPE_RELEASE(...) ECOPIPE_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
