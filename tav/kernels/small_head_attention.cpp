// Attention whose heads are at most a few numbers wide; see small_head_attention.py. Plain C++ with the vector types of gcc and clang.
//
// A problem is one head of one batch entry. Queries stay rows of D numbers; keys and values are turned, so that a vector holds
// the same component of W keys. Scores live in registers and in one row of scratch: nothing of N x M is ever written.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

constexpr int W = 16, BYTES = 4 * W, ROWS = 2;  // lanes of a vector; queries that share what is loaded of a key
typedef float V __attribute__((vector_size(BYTES)));
typedef int32_t I __attribute__((vector_size(BYTES)));

// Relative error below 2e-7 (Cephes' polynomial). 0 below -87; NaN stays NaN.
inline V exponential(V x) {
    const V shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;  // n is rounded: 1.5 * 2^23 has no fraction
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const V scaled = (V)((I)p + ((I)shifted << 23));
    return x < -87.0f ? V{} : scaled;
}

inline float total(V x) {
    float sum = 0;
    for (int lane = 0; lane < W; lane++) sum += x[lane];
    return sum;
}

inline float largest(V x) {
    float top = x[0];
    for (int lane = 1; lane < W; lane++) top = x[lane] > top ? x[lane] : top;
    return top;
}

// D components of M rows as D x blocks vectors; what is beyond M is 0.
template <int D> std::vector<V> turned(const float *rows, int64_t distance, int64_t count) {
    std::vector<V> out(D * ((count + W - 1) / W), V{});
    const int64_t blocks = out.size() / D;
    for (int64_t j = 0; j < count; j++)
        for (int c = 0; c < D; c++) out[c * blocks + j / W][j % W] = rows[j * distance + c];
    return out;
}

template <int D> void turn_back(const std::vector<V> &from, float *rows, int64_t distance, int64_t count) {
    const int64_t blocks = from.size() / D;
    for (int64_t j = 0; j < count; j++)
        for (int c = 0; c < D; c++) rows[j * distance + c] = from[c * blocks + j / W][j % W];
}

// Added to scores: takes the lanes beyond M out.
std::vector<V> outside(int64_t count) {
    std::vector<V> bias((count + W - 1) / W, V{});
    for (int64_t j = count; j < (int64_t)bias.size() * W; j++) bias[j / W][j % W] = -INFINITY;
    return bias;
}

template <class F> void share_out(int64_t problems, int threads, F work) {
    const int64_t each = (problems + threads - 1) / threads;
    const auto part = [=](int64_t first) {
        for (int64_t p = first; p < std::min(problems, first + each); p++) work(p);
    };
    std::vector<std::thread> others;
    for (int64_t first = each; first < problems; first += each) others.emplace_back(part, first);
    part(0);
    for (auto &thread : others) thread.join();
}

}  // namespace

// Tensors are [batch, rows, heads * D], without gaps; lse is [batch, heads, queries].
struct Problems {
    int64_t batch, heads, queries, keys;
    float scale;
    int threads;
};

// Where one problem's rows begin, of `rows` a batch entry.
template <int D, class T> T *at(T *data, const Problems &all, int64_t rows, int64_t problem) {
    return data + (problem / all.heads * rows * all.heads + problem % all.heads) * D;
}

template <int D> void forward(const Problems &all, const float *q, const float *k, const float *v, float *o, float *lse) {
    const std::vector<V> bias = outside(all.keys);
    const V *out_of = bias.data();
    const int64_t distance = all.heads * D;
    share_out(all.batch * all.heads, all.threads, [&, out_of, distance](int64_t problem) {
        const float *Q = at<D>(q, all, all.queries, problem);
        float *O = at<D>(o, all, all.queries, problem);
        const std::vector<V> turned_k = turned<D>(at<D>(k, all, all.keys, problem), distance, all.keys);
        const std::vector<V> turned_v = turned<D>(at<D>(v, all, all.keys, problem), distance, all.keys);
        const int64_t blocks = turned_k.size() / D;
        const V *K = turned_k.data(), *U = turned_v.data();
        std::vector<V> scratch(ROWS * blocks);
        V *S = scratch.data();
        for (int64_t first = 0; first < all.queries; first += ROWS) {
            const float *rows[ROWS];
            float a[ROWS][D];
            V top[ROWS], sum[ROWS], out[ROWS][D];
            for (int i = 0; i < ROWS; i++) {
                rows[i] = Q + std::min(first + i, all.queries - 1) * distance;  // the last row twice where they are odd
                for (int c = 0; c < D; c++) a[i][c] = rows[i][c] * all.scale, out[i][c] = V{};
                top[i] = V{} - INFINITY, sum[i] = V{};
            }
            for (int64_t j = 0; j < blocks; j++)
                for (int i = 0; i < ROWS; i++) {
                    V x = out_of[j];
                    for (int c = 0; c < D; c++) x += a[i][c] * K[c * blocks + j];
                    S[i * blocks + j] = x;
                    top[i] = x > top[i] ? x : top[i];
                }
            float most[ROWS];
            for (int i = 0; i < ROWS; i++) most[i] = largest(top[i]);
            for (int64_t j = 0; j < blocks; j++)
                for (int i = 0; i < ROWS; i++) {
                    const V e = exponential(S[i * blocks + j] - most[i]);
                    sum[i] += e;
                    for (int c = 0; c < D; c++) out[i][c] += e * U[c * blocks + j];
                }
            for (int64_t i = 0; i < std::min<int64_t>(ROWS, all.queries - first); i++) {
                const float whole = total(sum[i]);
                for (int c = 0; c < D; c++) O[(first + i) * distance + c] = total(out[i][c]) / whole;
                lse[problem * all.queries + first + i] = most[i] + std::log(whole);
            }
        }
    });
}

// gk and gv may both be null: then they are not wanted.
template <int D, bool KEYS>
void backward(const Problems &all, const float *q, const float *k, const float *v, const float *o, const float *lse,
              const float *go, float *gq, float *gk, float *gv) {
    const std::vector<V> bias = outside(all.keys);
    const V *out_of = bias.data();
    const int64_t distance = all.heads * D;
    share_out(all.batch * all.heads, all.threads, [&, out_of, distance](int64_t problem) {
        const float *Q = at<D>(q, all, all.queries, problem), *O = at<D>(o, all, all.queries, problem);
        const float *G = at<D>(go, all, all.queries, problem), *L = lse + problem * all.queries;
        float *GQ = at<D>(gq, all, all.queries, problem);
        const std::vector<V> turned_k = turned<D>(at<D>(k, all, all.keys, problem), distance, all.keys);
        const std::vector<V> turned_v = turned<D>(at<D>(v, all, all.keys, problem), distance, all.keys);
        const int64_t blocks = turned_k.size() / D;
        const V *K = turned_k.data(), *U = turned_v.data();
        std::vector<V> sums(KEYS ? 2 * D * blocks : 0, V{});
        V *GK = sums.data(), *GU = GK + (KEYS ? D * blocks : 0);
        for (int64_t first = 0; first < all.queries; first += ROWS) {
            float a[ROWS][D], g[ROWS][D], log_sum[ROWS], delta[ROWS];
            V da[ROWS][D];
            for (int i = 0; i < ROWS; i++) {
                const bool there = first + i < all.queries;  // where not, gradients of 0
                const int64_t row = there ? first + i : first;
                log_sum[i] = L[row], delta[i] = 0;
                for (int c = 0; c < D; c++) {
                    a[i][c] = Q[row * distance + c] * all.scale;
                    g[i][c] = there ? G[row * distance + c] : 0;
                    delta[i] += g[i][c] * O[row * distance + c];
                    da[i][c] = V{};
                }
            }
            for (int64_t j = 0; j < blocks; j++) {
                V dk[D], du[D];
                if (KEYS)
                    for (int c = 0; c < D; c++) dk[c] = GK[c * blocks + j], du[c] = GU[c * blocks + j];
                for (int i = 0; i < ROWS; i++) {
                    V x = out_of[j] - log_sum[i], d = V{} - delta[i];
                    for (int c = 0; c < D; c++) x += a[i][c] * K[c * blocks + j], d += g[i][c] * U[c * blocks + j];
                    const V e = exponential(x), ds = e * d;
                    for (int c = 0; c < D; c++) {
                        da[i][c] += ds * K[c * blocks + j];
                        if (KEYS) dk[c] += ds * a[i][c], du[c] += e * g[i][c];
                    }
                }
                if (KEYS)
                    for (int c = 0; c < D; c++) GK[c * blocks + j] = dk[c], GU[c * blocks + j] = du[c];
            }
            for (int64_t i = 0; i < std::min<int64_t>(ROWS, all.queries - first); i++)
                for (int c = 0; c < D; c++) GQ[(first + i) * distance + c] = total(da[i][c]) * all.scale;
        }
        if (KEYS) {
            const std::vector<V> of_keys(GK, GK + D * blocks), of_values(GU, GU + D * blocks);
            turn_back<D>(of_keys, at<D>(gk, all, all.keys, problem), distance, all.keys);
            turn_back<D>(of_values, at<D>(gv, all, all.keys, problem), distance, all.keys);
        }
    });
}

#define FOR_WIDTH(D)                                                                                                       \
    extern "C" void forward_##D(const Problems *all, const float *q, const float *k, const float *v, float *o, float *lse) { \
        forward<D>(*all, q, k, v, o, lse);                                                                                 \
    }                                                                                                                      \
    extern "C" void backward_##D(const Problems *all, const float *q, const float *k, const float *v, const float *o,      \
                                 const float *lse, const float *go, float *gq, float *gk, float *gv) {                     \
        if (gk)                                                                                                            \
            backward<D, true>(*all, q, k, v, o, lse, go, gq, gk, gv);                                                      \
        else                                                                                                               \
            backward<D, false>(*all, q, k, v, o, lse, go, gq, gk, gv);                                                     \
    }
FOR_WIDTH(4)
FOR_WIDTH(8)
