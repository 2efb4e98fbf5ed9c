// Sums of products of rows with themselves: each row is fetched from memory once, shifted, and multiplied in registers.
//
// Rows are [X | Y] less a shift, with a one behind, times a root of their weight. KB of them are laid out in panels as
// wide as a vector, which stay in the core's caches, and every tile of the upper triangle is a product of panels that
// never leaves the registers. Meanwhile the rows to come are fetched.
//
// What is summed in which order: an element of the result is the sum, over parts of PART rows in order, of sums over
// blocks of KB rows in order, of products added up row by row by fused multiply-adds. That is so for every number of
// threads and every width of vectors, so the bits are the same, too: a part belongs to one thread, and parts are added
// up in their order. Sums of a block are in T (float or double), those above in double.
//
// Written with GCC's and Clang's vector extensions; the tiles are those of Goto & van de Geijn, "Anatomy of
// high-performance matrix multiplication", ACM Transactions on Mathematical Software 34(3), 2008, article 12.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
#define VB 64  // bytes of a vector
static constexpr long NB = 8;  // columns of a tile: 24 registers of sums
#else
#define VB 32
static constexpr long NB = 4;  // 12 registers of sums
#endif
static constexpr int MV = 3;        // vectors down a tile
static constexpr long KB = 128;  // rows of a block: three panels of them and one more lie in the first-level cache

#include "rows.inc"

static constexpr long STEPS = 4;  // rows between two fetches

template <class T>
struct Gram {
    typedef T V __attribute__((vector_size(VB)));
    typedef T U __attribute__((vector_size(VB), aligned(sizeof(T)), may_alias));
    static constexpr long W = VB / sizeof(T);
    static constexpr long STEP = KB * W + 64 / sizeof(T);  // of panels; not a power of 2, which would share cache sets

    const Rows& r;
    const long vectors, groups, tiles;
    Buffer<T> packed;

    explicit Gram(const Rows& rows)
        : r(rows), vectors((rows.wide() + W - 1) / W), groups((rows.wide() + NB - 1) / NB),
          tiles(count(vectors, groups)), packed(vectors * STEP) {}

    // f(first vector, group, vectors) for the tiles on and above the diagonal
    template <class F>
    static void each(long vectors, long groups, F f) {
        for (long i = 0; i < vectors; i += MV)
            for (long g = i * W / NB; g < groups; g++)
                f(i, g, std::min<long>({MV, vectors - i, (g * NB + NB - 1) / W - i + 1}));
    }
    static long count(long vectors, long groups) {
        long n = 0;
        each(vectors, groups, [&](long, long, long m) { n += m; });
        return n;
    }
    size_t numbers() const { return size_t(tiles) * NB * W; }

    static inline V load(const T* p) { return *(const U*)p; }

    template <class S>
    inline void pack_full(const S* x, T* to, long full, const double* shift, double root, bool weighted) {
        typedef S VS __attribute__((vector_size(sizeof(S) * W), aligned(sizeof(S)), may_alias));
        typedef double VD __attribute__((vector_size(8 * W)));
        typedef double UD __attribute__((vector_size(8 * W), aligned(8), may_alias));
        for (long v = 0; v < full; v++) {
            VD d = __builtin_convertvector(*(const VS*)(x + v * W), VD) - *(const UD*)(shift + v * W);
            if (weighted) d *= root;
            *(V*)(to + v * STEP) = __builtin_convertvector(d, V);
        }
    }
    template <class S>
    void pack(int64_t first, long count) {
        const long full = r.p / W, wide = r.wide();
        T* const base = packed.data();
        for (long k = 0; k < count; k++) {
            const S* x = (const S*)(r.x + (first + k) * r.x_step);
            const double root = r.root ? r.root[first + k] : 1.0;
            T* to = base + k * W;
            if (r.root) pack_full<S>(x, to, full, r.shift, root, true);
            else pack_full<S>(x, to, full, r.shift, root, false);
            auto put = [&](long c, double value) { to[c / W * STEP + c % W] = (T)(value * root); };
            for (long c = full * W; c < r.p; c++) put(c, (double)x[c] - r.shift[c]);
            const char* y = r.y + (first + k) * r.y_step;
            for (long c = 0; c < r.q; c++, y += r.y_across)
                put(r.p + c, (r.y_single ? (double)*(const float*)y : *(const double*)y) - r.shift[r.p + c]);
            put(r.p + r.q, 1.0);
            for (long c = wide; c < vectors * W; c++) to[c / W * STEP + c % W] = 0;
        }
    }

    template <int M>
    static inline __attribute__((always_inline)) void row(V (&sums)[M][NB], const T* a, const T* b) {
        V left[M];
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) left[m] = *(const V*)(a + m * STEP);
#pragma GCC unroll 8
        for (int j = 0; j < NB; j++) {
            const V right = b[j] - (V){};
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) sums[m][j] += left[m] * right;
        }
    }
    template <int M, bool FIRST>
    static void tile(const T* a, const T* b, long rows, double* c, Ahead& ahead) {
        if (!FIRST)  // what will be added to: above 500 columns it lies beyond the second-level cache
            for (long i = 0; i < M * NB * W; i += 8) __builtin_prefetch(c + i, 1, 3);
        V sums[M][NB] = {};
        long k = 0;
        for (; k + STEPS <= rows; k += STEPS) {
#pragma GCC unroll 4
            for (long s = 0; s < STEPS; s++) row<M>(sums, a + (k + s) * W, b + (k + s) * W);
            ahead.some();
        }
        for (; k < rows; k++) row<M>(sums, a + k * W, b + k * W);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
#pragma GCC unroll 8
            for (int j = 0; j < NB; j++) {
                double* to = c + (m * NB + j) * W;
                typedef double VD __attribute__((vector_size(8 * W)));
                typedef double UD __attribute__((vector_size(8 * W), aligned(8), may_alias));
                const VD found = __builtin_convertvector(sums[m][j], VD);
                *(UD*)to = FIRST ? found : *(UD*)to + found;
            }
    }
    template <bool FIRST>
    void multiply(long rows, double* sums, Ahead ahead) {
        double* c = sums;
        const T* base = packed.data();
        each(vectors, groups, [&](long i, long g, long m) {
            const T* a = base + i * STEP;
            const T* b = base + g * NB / W * STEP + g * NB % W;
            if (m == 3) tile<3, FIRST>(a, b, rows, c, ahead);
            else if (m == 2) tile<2, FIRST>(a, b, rows, c, ahead);
            else tile<1, FIRST>(a, b, rows, c, ahead);
            c += m * NB * W;
        });
    }
    // sums = those of one part
    void part(int64_t first, int64_t last, double* sums) {
        long calls = 0;
        each(vectors, groups, [&](long, long, long) { calls++; });
        calls *= KB / STEPS;
        for (int64_t k = first; k < last; k += KB) {
            const long rows = std::min<int64_t>(KB, last - k);
            if (r.x_single) pack<float>(k, rows);
            else pack<double>(k, rows);
            Ahead ahead(r, k + rows, KB, calls);
            if (k == first) multiply<true>(rows, sums, ahead);
            else multiply<false>(rows, sums, ahead);
        }
    }
    // square: (wide, wide), row by row; below the diagonal it is left alone
    void unpack(const double* sums, double* square) const {
        const long wide = r.wide();
        const double* c = sums;
        each(vectors, groups, [&](long i, long g, long m) {
            for (long v = i; v < i + m; v++)
                for (long j = g * NB; j < g * NB + NB; j++, c += W) {
                    if (j >= wide) continue;
                    for (long w = 0; w < W && v * W + w <= j; w++) square[(v * W + w) * wide + j] = c[w];
                }
        });
    }
};

template <class T>
static void add_up(const Rows& r, int64_t threads, double* square) {
    struct Own {
        Gram<T> gram;
        Buffer<double> sums;
    };
    static_assert(PART % KB == 0, "blocks of another part");
    const Gram<T> whole(r);
    Buffer<double> total(whole.numbers());
    by_parts((r.rows + PART - 1) / PART, threads,
        [&] { return Own{Gram<T>(r), Buffer<double>(whole.numbers())}; },
        [&](Own& own, int64_t k) { own.gram.part(k * PART, std::min(r.rows, (k + 1) * PART), own.sums.data()); },
        [&](Own& own, int64_t) { for (size_t i = 0; i < total.size(); i++) total[i] += own.sums[i]; });
    whole.unpack(total.data(), square);
}

// square (wide, wide): the sums of products of [X - shift | Y - shift | 1] times root, on and above the diagonal.
// Returns 0, or 1 where there is not enough memory.
extern "C" int hasten_gram(const Rows* r, int32_t single, int64_t threads, double* square) {
    try {
        if (single) add_up<float>(*r, threads, square);
        else add_up<double>(*r, threads, square);
    } catch (...) {
        return 1;
    }
    return 0;
}

#include "residual.inc"
#include "slide.inc"
#include "recursive.inc"
