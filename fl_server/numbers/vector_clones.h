#pragma once
// Marks a loop to be compiled for several instruction sets, chosen when the program starts. All
// clones compute the same bits: no contraction, no reassociation.

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define ECOPIPE_VECTOR_CLONES __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define ECOPIPE_VECTOR_CLONES
#endif
