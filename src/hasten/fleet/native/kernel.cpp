// One model at a time, its weights, gradients and optimizer state in the core's own cache.
//
// The optimizer is the epilogue of the weight gradient: a few rows of the gradient lie in the first-level cache when their
// weights and moments are updated, and the whole is never stored (unless gradients are clipped). Activations are row-major,
// weights are stored (inputs, outputs) so that the forward product reads them along the vector; the product for the inputs'
// gradient reads a transposed copy, and puts that gradient where the activations of a ReLU lay, which nobody needs any more.
// Nothing here depends on another model, on threads or on addresses.
//
// Written with GCC's and Clang's vector extensions for the width of the target (64, 32 or 16 bytes).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VB 64
#define REGISTERS 32
#define WIDE 4
#elif defined(__AVX__)
#define VB 32
#define REGISTERS 16
#define WIDE 2
#else
#define VB 16
#define REGISTERS 16
#define WIDE 2
#endif
#define MR 12  // rows of a tile, at most

typedef float vf __attribute__((vector_size(VB)));
typedef float vu __attribute__((vector_size(VB), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VB)));
typedef uint32_t vw __attribute__((vector_size(VB)));
static constexpr long VL = VB / 4;

// Every buffer begins on a cache line: where an array lies must not decide how a loop over it is cut into vectors, since
// compilers contract the rest of a loop differently.
template <class T>
struct Aligned {
    typedef T value_type;
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(size_t n) { return (T*)::operator new(n * sizeof(T), std::align_val_t(64)); }
    void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    bool operator==(const Aligned&) const { return true; }
    bool operator!=(const Aligned&) const { return false; }
};
typedef std::vector<float, Aligned<float>> Floats;

#define INLINE __attribute__((always_inline))

// f(0), f(1), ... f(N - 1), each a constant. A loop that is unrolled later leaves arrays of vectors in memory.
template <class F, int... I>
static inline INLINE void for_each(std::integer_sequence<int, I...>, F f) {
    (f(std::integral_constant<int, I>()), ...);
}
template <int N, class F>
static inline INLINE void each(F f) {
    for_each(std::make_integer_sequence<int, N>(), f);
}

static inline vf load(const float* p) { return *(const vu*)p; }
static inline void save(float* p, vf v) { *(vu*)p = v; }
static inline INLINE void save(float* p, vf v, long room) {  // no more than that
    if (room >= VL) return save(p, v);
    float t[VL];
    save(t, v), memcpy(p, t, 4 * room);
}
static inline vf splat(float x) { return x - (vf){}; }
static inline long up(long n) { return (n + VL - 1) / VL * VL; }
static inline vf root(vf x) {
    float t[VL];
    save(t, x);
    for (long i = 0; i < VL; i++) t[i] = sqrtf(t[i]);
    return load(t);
}
static inline vf square_root(vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    return root(x);
#endif
}
// x, or `least` where x is smaller; not a number stays what it is.
static inline vf at_least(vf x, vf least) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)least, (__m512)x);
#elif defined(__AVX__)
    return (vf)_mm256_max_ps((__m256)least, (__m256)x);
#else
    return x < least ? least : x;
#endif
}
// a / (square root of v * root2 + eps). By AVX-512 the root and the quotient are estimates of 14 bits and one step of
// Newton's, within about an ulp: the divider takes longer than all the rest of an update.
static inline vf adapted(vf a, vf v, vf root2, vf eps) {
#if defined(__AVX512F__)
    const __m512 x = (__m512)v, y = _mm512_rsqrt14_ps(x), half = _mm512_set1_ps(0.5f);
    const __mmask16 plain = ~_mm512_fpclass_ps_mask(x, 0x8F);  // nought, infinity and NaN are their own roots
    const __m512 s = _mm512_mask_mul_ps(x, plain, x, y);
    const __m512 error = _mm512_fnmadd_ps(s, _mm512_mul_ps(half, y), half);
    const __m512 root = _mm512_mask_fmadd_ps(s, plain, error, s);
    const __m512 sum = _mm512_fmadd_ps(root, (__m512)root2, (__m512)eps);
    const __m512 d = _mm512_min_ps(_mm512_set1_ps(3e38f), sum);  // in this order NaN passes, and infinity does not
    const __m512 r = _mm512_rcp14_ps(d), q = _mm512_mul_ps((__m512)a, r);
    return (vf)_mm512_fmadd_ps(_mm512_fnmadd_ps(d, q, (__m512)a), r, q);
#else
    return a / (square_root(v) * root2 + eps);
#endif
}
static inline float sum(vf v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#endif
    float t[VL];
    save(t, v);
    for (long w = VL / 2; w; w /= 2)
        for (long i = 0; i < w; i++) t[i] += t[i + w];
    return t[0];
}

// Subnormal numbers are taken as nought while one of these lives. The moments of a unit that died decay into them, and each
// then costs a hundred cycles.
struct Flushed {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    Flushed() { _mm_setcsr(before | 0x8040); }
    ~Flushed() { _mm_setcsr(before); }
#endif
};

// -- what Python hands over -------------------------------------------------------------------------------------------

enum Kind : int32_t { LINEAR, ACTIVATION, DROPOUT, LAYERNORM, BATCHNORM, CONV, TURN, RECURRENT, ADD, PICK, AVERAGE, MAXIMUM };
enum Act : int32_t { NONE, RELU, LEAKY, ELU, SELU, GELU, GELU_TANH, SILU, SIGMOID, TANH,
                     SOFTPLUS, MISH, CELU, SOFTSIGN, RELU6, HARDTANH, HARDSWISH };
enum LossKind : int32_t { MSE, MAE, HUBER, QUANTILE, CROSS_ENTROPY, BCE };
enum Optimizer : int32_t { SGD, ADAM, ADAMW };

struct Op {  // offsets count floats in the flat row, -1 where there is none
    int32_t kind, in, out, act;
    float p, eps, momentum;
    int32_t span;  // of a norm: features it takes together (a layer norm), features of a channel (a batch norm)
    int64_t weight, bias, mean, var;  // running mean and variance of a batch norm
    int64_t counter;
    int64_t state_weight, state_bias;  // of a recurrent layer
    int32_t lanes;  // whether it sees rows side by side (lanes.inc); of TURN: whether it makes them so
    int32_t channels, filters, taps, stride, dilation, pad, groups;  // of a convolution; of others, see graph_passes.inc
    int32_t gates, steps, units;  // of a recurrent layer, see steps.inc
    int32_t source, other;        // layers whose output it takes, -1 for the model's input; `other` of an addition
};

struct Config {
    int32_t ops, batch, loss, optimizer, nesterov, inputs, outputs, total, trained, season;  // season: of a residual, 0 none
    float loss_parameter, momentum;
    double beta1, beta2;
    float eps, clip;  // clip <= 0: none
};

static inline vf shuffled(vf a, vf b, vi from) {
#if defined(__clang__)
    vf r;
    for (int i = 0; i < VL; i++) r[i] = from[i] < VL ? a[from[i]] : b[from[i] - VL];
    return r;
#else
    return __builtin_shuffle(a, b, from);
#endif
}

// -- random numbers: Philox4x32-10, the same as streams.py ------------------------------------------------------------

typedef uint64_t vq __attribute__((vector_size(VB)));
typedef int64_t vs __attribute__((vector_size(VB)));
static constexpr int HALF = VL / 2;

static inline vq multiplied(vq a, vq b) {  // the lower halves, to whole numbers
#if defined(__AVX512F__)
    return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && !defined(__AVX__)
    return (vq)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}
static inline vf zipped(vq a, vq b, int from) {  // a[from], b[from], a[from + 1], ...
    vi at;
    for (int i = 0; i < VL; i++) at[i] = 2 * from + i / 4 * 2 + i % 2 + (i & 2 ? VL : 0);
    return shuffled((vf)a, (vf)b, at);
}
// Some blocks of 4 words, 16 unless told. What stands in the upper halves of the numbers does not matter.
template <int BLOCKS = 16>
static void philox(uint64_t stream, uint32_t block, uint32_t step, uint32_t epoch, uint32_t purpose, uint32_t* out) {
    enum { N = BLOCKS / HALF };
    vq c0[N], c1[N], c2[N], c3[N], k0 = (vq){} + (uint32_t)stream, k1 = (vq){} + (stream >> 32);
    for (int n = 0; n < N; n++) {
        vq each;
        for (int i = 0; i < HALF; i++) each[i] = n * HALF + i;
        c0[n] = each + block;
        c1[n] = (vq){} + step, c2[n] = (vq){} + epoch, c3[n] = (vq){} + purpose;
    }
    for (int r = 0; r < 10; r++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int n = 0; n < N; n++) {
            const vq a = multiplied((vq){} + 0xD2511F53u, c0[n]), b = multiplied((vq){} + 0xCD9E8D57u, c2[n]);
            c0[n] = (b >> 32) ^ c1[n] ^ k0, c2[n] = (a >> 32) ^ c3[n] ^ k1, c1[n] = b, c3[n] = a;
        }
    for (int n = 0; n < N; n++) {
        const vq low = (c0[n] & 0xFFFFFFFFu) | c1[n] << 32, high = (c2[n] & 0xFFFFFFFFu) | c3[n] << 32;
        save((float*)out + 4 * HALF * n, zipped(low, high, 0));
        save((float*)out + 4 * HALF * n + VL, zipped(low, high, HALF / 2));
    }
}

static void words(uint64_t stream, long count, uint32_t purpose, uint32_t epoch, uint32_t step, uint32_t* out) {
    for (long b = 0; 4 * b < count; b += 16) philox(stream, (uint32_t)b, step, epoch, purpose, out + 4 * b);
}

// Every second pair of neighbours from `from` on in order; whether all were already.
static bool pairs_in_order(int64_t* x, long n, long from) {
    vi other;
    for (int i = 0; i < VL; i++) other[i] = i ^ 2;
    const vs odd = [] { vs v; for (int i = 0; i < HALF; i++) v[i] = -(i % 2); return v; }();
    vs sorted = (vs){} - 1;
    long i = from;
    for (; i + HALF <= n; i += HALF) {
        const vf both = load((const float*)(x + i));
        const vs a = (vs)both, b = (vs)shuffled(both, both, other), stays = (vs)(a < b) ^ odd;
        save((float*)(x + i), (vf)(a & stays | b & ~stays)), sorted &= stays;
    }
    bool all = true;
    for (int k = 0; k < HALF; k++) all &= sorted[k] != 0;
    for (; i + 1 < n; i += 2)
        if (x[i] > x[i + 1]) std::swap(x[i], x[i + 1]), all = false;
    return all;
}

// Rows sorted by their words, and equal words by rows: into about as many parts as there are rows by the words' first
// bits. Next to nothing is out of its place then: neighbours change places without a branch that nobody can foresee.
static void permutation(uint64_t stream, long n, uint32_t epoch, std::vector<uint32_t>& space, int64_t* order) {
    int bits = 4;
    while (bits < 20 && 1l << bits < n) bits++;
    const long parts = 1l << bits, padded = (n + 63) / 64 * 64;
    space.assign(padded + parts, 0);
    uint32_t *key = space.data(), *at = key + padded;
    words(stream, n, 1, epoch, 0, key);
    for (long i = 0; i < n; i++) at[key[i] >> (32 - bits)]++;
    for (long i = 0, total = 0; i < parts; i++) { const long c = at[i]; at[i] = (uint32_t)total; total += c; }
    for (long i = 0; i < n; i++)  // signed numbers in the words' order
        order[at[key[i] >> (32 - bits)]++] = (int64_t)((uint64_t)(key[i] ^ 0x80000000u) << 32 | (uint64_t)i);
    bool sorted = false;
    for (int pass = 0; VB > 16 && pass < 16 && !sorted; pass++) {
        const bool even = pairs_in_order(order, n, 0);
        sorted = pairs_in_order(order, n, 1) && even;
    }
    for (long i = 1; i < n && !sorted; i++) {  // narrow vectors, or far more rows than parts
        const int64_t one = order[i];
        long k = i;
        for (; k > 0 && order[k - 1] > one; k--) order[k] = order[k - 1];
        order[k] = one;
    }
    for (long i = 0; i < n; i++) order[i] &= 0xFFFFFFFF;
}

// -- functions of one number, in loops that compilers vectorise -------------------------------------------------------

static inline float fast_exp(float x) {  // Cephes (Moshier): expf, about 1 ulp
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = nearbyintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f, p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f, p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;  // of a NaN, too: the shift of a negative number is undefined
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}
static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }
static inline float tangent(float x) {  // Cephes: tanhf
    float z = x * x, p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f, p = p * z - 5.37397155531e-2f, p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float small = p * z * x + x, large = 1.0f - 2.0f / (fast_exp(2.0f * fabsf(x)) + 1.0f);
    return fabsf(x) < 0.625f ? small : copysignf(large, x);
}
static inline float error_function(float x) {  // Abramowitz and Stegun 7.1.26, within 1.5e-7
    float a = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f, p = p * t + 1.421413741f, p = p * t - 0.284496736f, p = p * t + 0.254829592f;
    return copysignf(1.0f - p * t * fast_exp(-a * a), x);
}
static inline float softplus(float x) {  // the logarithm of 1 + z as an odd series in z / (2 + z), which is 1/3 at most
    float z = fast_exp(-fabsf(x)), s = z / (2.0f + z), q = s * s, p = 1.0f / 15;
    p = p * q + 1.0f / 13, p = p * q + 1.0f / 11, p = p * q + 1.0f / 9, p = p * q + 1.0f / 7, p = p * q + 0.2f;
    p = p * q + 1.0f / 3;
    return (x > 0 ? x : 0) + 2.0f * (s + s * q * p);
}
static inline float gate(float x) {  // tanh of the softplus, which is 1 from 20 on
    float e = fast_exp(x < 20 ? x : 20), n = e * (e + 2.0f);
    return n / (n + 2.0f);
}
static constexpr float SELU_A = 1.6732632423543772f, SELU_S = 1.0507009873554805f;
static constexpr float GC = 0.7978845608028654f, GB = 0.044715f;  // GELU's tanh form

template <Act A>
static inline float value(float x, float p) {
    if (A == RELU) return x < 0 ? 0 : x;
    if (A == LEAKY) return x > 0 ? x : p * x;
    if (A == ELU) return x > 0 ? x : p * (fast_exp(x) - 1);
    if (A == SELU) return SELU_S * (x > 0 ? x : SELU_A * (fast_exp(x) - 1));
    if (A == GELU) return 0.5f * x * (1 + error_function(x * 0.7071067811865476f));
    if (A == GELU_TANH) return 0.5f * x * (1 + tangent(GC * (x + GB * x * x * x)));
    if (A == SILU) return x * sigmoid(x);
    if (A == SIGMOID) return sigmoid(x);
    if (A == TANH) return tangent(x);
    if (A == SOFTPLUS) return p * x > 20 ? x : softplus(p * x) / p;
    if (A == MISH) return x * gate(x);
    if (A == CELU) return x > 0 ? x : p * (fast_exp(x / p) - 1);
    if (A == SOFTSIGN) return x / (1 + fabsf(x));
    if (A == RELU6) return x < 0 ? 0 : x > 6 ? 6 : x;
    if (A == HARDTANH) return x < -p ? -p : x > p ? p : x;
    if (A == HARDSWISH) return x < -3 ? 0 : x > 3 ? x : x * (x + 3) * (1.0f / 6);
    return x;
}
template <Act A>
static inline float slope(float x, float y, float p) {  // from input and output
    if (A == RELU) return x > 0 ? 1.0f : 0.0f;
    if (A == LEAKY) return x > 0 ? 1.0f : p;
    if (A == ELU) return x > 0 ? 1.0f : p * fast_exp(x);
    if (A == SELU) return x > 0 ? SELU_S : SELU_S * SELU_A * fast_exp(x);
    if (A == GELU)
        return 0.5f * (1 + error_function(x * 0.7071067811865476f)) + x * 0.3989422804014327f * fast_exp(-0.5f * x * x);
    if (A == GELU_TANH) {
        float t = tangent(GC * (x + GB * x * x * x));
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * GC * (1 + 3 * GB * x * x);
    }
    if (A == SILU) { float s = sigmoid(x); return s * (1 + x * (1 - s)); }
    if (A == SIGMOID) return y * (1 - y);
    if (A == TANH) return 1 - y * y;
    if (A == SOFTPLUS) return p * x > 20 ? 1.0f : sigmoid(p * x);
    if (A == MISH) { float g = gate(x); return g + x * (1 - g * g) * sigmoid(x); }
    if (A == CELU) return x > 0 ? 1.0f : fast_exp(x / p);
    if (A == SOFTSIGN) { float s = 1 / (1 + fabsf(x)); return s * s; }
    if (A == RELU6) return x > 0 && x < 6 ? 1.0f : 0.0f;
    if (A == HARDTANH) return x > -p && x < p ? 1.0f : 0.0f;
    if (A == HARDSWISH) return x < -3 ? 0.0f : x > 3 ? 1.0f : x * (1.0f / 3) + 0.5f;
    return 1;
}
template <Act A>
static void act_forward(const float* x, float* y, long n, float p) {
    for (long i = 0; i < n; i++) y[i] = value<A>(x[i], p);
}
template <Act A>
static void act_backward(const float* x, const float* y, float* d, long n, float p) {
    for (long i = 0; i < n; i++) d[i] *= slope<A>(x[i], y[i], p);
}
#define EACH(F)                                                                             \
    F(LEAKY) F(ELU) F(SELU) F(GELU) F(GELU_TANH) F(SILU) F(SIGMOID) F(TANH) F(RELU) F(SOFTPLUS) \
    F(MISH) F(CELU) F(SOFTSIGN) F(RELU6) F(HARDTANH) F(HARDSWISH)

// -- products: C[i][j] = first[j] + sum over k of A[i * ars + k * aks] * B[k * ldb + j] --------------------------------

template <int R, int C, bool SUMS, class E>
static inline INLINE void tile(
    long K, const float* A, long ars, long aks, const float* B, long ldb, const float* first, long i, long j, E epilogue,
    vf* sums) {
    vf acc[R][C], col[C];
    each<C>([&](auto c) INLINE {
        const vf start = load(first + j + c * VL);
        each<R>([&](auto r) INLINE { acc[r][c] = start; });
        col[c] = (vf){};
    });
    for (long k = 0; k < K; k++) {
        vf b[C];
        each<C>([&](auto c) INLINE {
            b[c] = load(B + k * ldb + c * VL);
            if (SUMS) col[c] += b[c];
        });
        each<R>([&](auto r) INLINE {
            const vf a = splat(A[r * ars + k * aks]);
            each<C>([&](auto c) INLINE { acc[r][c] += a * b[c]; });
        });
    }
    each<R>([&](auto r) INLINE { each<C>([&](auto c) INLINE { epilogue(i + r, j + c * VL, acc[r][c]); }); });
    if (SUMS) each<C>([&](auto c) INLINE { sums[c] = col[c]; });
}

// Rows of a tile that is C vectors wide: as many as the registers hold beside a row of B and one broadcast.
template <int C>
static constexpr int TALL = std::min<int>((REGISTERS - 1 - C) / C, MR);

template <int R, int C, bool SUMS, class E>
static inline void rows(
    long count, long K, const float* A, long ars, long aks, const float* B, long ldb, const float* first, long i, long j,
    const E& epilogue, vf* sums) {
    if (count == R) return tile<R, C, SUMS>(K, A, ars, aks, B, ldb, first, i, j, epilogue, sums);
    if constexpr (R > 1) rows<R - 1, C, SUMS>(count, K, A, ars, aks, B, ldb, first, i, j, epilogue, sums);
}

// epilogue(i, j, v): v is row i, columns j to j + VL. column(j, v): v is the sum over k of B's columns j to j + VL.
template <int C, bool SUMS, class E, class S>
static inline void panel(
    long j, long M, long K, const float* A, long ars, long aks, const float* B, long ldb, const float* first, E& epilogue,
    S& column) {
    constexpr int R = TALL<C>;
    vf sums[C];
    for (long i = 0; i < M; i += R) {
        const long count = std::min<long>(R, M - i);
        if (SUMS && i == 0)
            rows<R, C, true>(count, K, A, ars, aks, B + j, ldb, first, 0, j, epilogue, sums);
        else
            rows<R, C, false>(count, K, A + i * ars, ars, aks, B + j, ldb, first, i, j, epilogue, nullptr);
    }
    if (SUMS)
        for (int c = 0; c < C; c++) column(j + c * VL, sums[c]);
}

template <bool SUMS, class E, class S>
static inline void product(
    long M, long N, long K, const float* A, long ars, long aks, const float* B, long ldb, const float* first, E epilogue,
    S column) {
    long j = 0;
    if constexpr (WIDE > 2)
        for (; j + WIDE * VL <= N; j += WIDE * VL)
            panel<WIDE, SUMS>(j, M, K, A, ars, aks, B, ldb, first, epilogue, column);
    for (; j + 2 * VL <= N; j += 2 * VL) panel<2, SUMS>(j, M, K, A, ars, aks, B, ldb, first, epilogue, column);
    for (; j < N; j += VL) panel<1, SUMS>(j, M, K, A, ars, aks, B, ldb, first, epilogue, column);
}
static constexpr auto NOTHING = [](long, vf) {};

// One VL by VL block: in log2(VL) steps, rows a distance of S apart exchange blocks of S numbers.
template <int S>
static inline __attribute__((always_inline)) void exchange(vf* r) {
    vi low, high;
    for (int i = 0; i < VL; i++) low[i] = i & S ? VL + i - S : i, high[i] = i & S ? VL + i : i + S;
    for (int i = 0; i < VL; i++)
        if (!(i & S)) {
            const vf a = r[i], b = r[i + S];
            r[i] = shuffled(a, b, low), r[i + S] = shuffled(a, b, high);
        }
    if constexpr (S > 1) exchange<S / 2>(r);
}
// The sum of each of VL vectors, in its own lane.
template <int S = VL / 2>
static inline INLINE vf each_sum(vf* r) {
    vi low, high;
    for (int i = 0; i < VL; i++) low[i] = i & S ? VL + i - S : i, high[i] = i & S ? VL + i : i + S;
    each<S>([&](auto i) INLINE { r[i] = shuffled(r[i], r[i + S], low) + shuffled(r[i], r[i + S], high); });
    if constexpr (S > 1) return each_sum<S / 2>(r);
    return r[0];
}
template <class T>  // of 4 bytes
static void transpose(const T* from, long rows, long cols, long ldf, T* to, long ldt) {
    const long whole_rows = rows / VL * VL, whole_cols = cols / VL * VL;
    for (long i = 0; i < whole_rows; i += VL)
        for (long j = 0; j < whole_cols; j += VL) {
            vf r[VL];
            for (int k = 0; k < VL; k++) r[k] = load((const float*)(from + (i + k) * ldf + j));
            exchange<VL / 2>(r);
            for (int k = 0; k < VL; k++) save((float*)(to + (j + k) * ldt + i), r[k]);
        }
    for (long i = 0; i < rows; i++)
        for (long j = i < whole_rows ? whole_cols : 0; j < cols; j++) to[j * ldt + i] = from[i * ldf + j];
}
static inline void copy(float* to, const float* from, long n) {
    long k = 0;
    for (; k + VL <= n; k += VL) save(to + k, load(from + k));
    for (; k < n; k++) to[k] = from[k];
}

#include "lanes.inc"
#include "steps.inc"
#include "workspace.inc"
#include "rows.inc"
#include "lane_passes.inc"
#include "step_passes.inc"
#include "graph_passes.inc"
#include "model.inc"
#include "door.inc"
#include "tape.inc"
