#pragma once
// How a program ends that nobody can help any more: one line on stderr and exit code 1, from
// whatever thread and library it comes, instead of an abort.

namespace ecopipe {

// An exception that nobody catches (an allocation that failed in a thread of a library, above all)
// ends the process with "PROGRAM: what it says" and exit code 1; so does the abort of a library
// that found no memory, whose own line it then is, and, under a limit of the address space (ulimit
// -v), the fault of one that did not look. Bugs still abort. Every program that links this file
// does so from before the first initialiser of a library, under its file's name; this gives it
// another, which lives as long as the process.
void install_last_words(const char* program);

// Says "PROGRAM: what", its first line, and ends the process with exit code 1. Allocates nothing.
[[noreturn]] void end_with_last_words(const char* what);

// The exit code of main. Under a limit of the address space it leaves at once, with what was
// printed: a thread of OpenBLAS that found no room for its buffer asks for ever, and the library's
// end waits for it.
[[nodiscard]] int leave_main(int code);

}  // namespace ecopipe
