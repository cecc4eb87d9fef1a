/* What a loop for one case alone can do: the Laplace kernel on S^2, in float32, on one thread.

   It yields gradients alone, without weights, other kernels or checks. References are a structure of arrays.
   Every lane of a vector has an online softmax of its own, which is rescaled once a block; the sums stay in
   registers. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define WIDTH 16
#define VECTORS 16 /* in a block: the fastest of 2, 4, 8 and 16 on an EPYC */
#define BLOCK (WIDTH * VECTORS)
#define INLINE static inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(WIDTH * sizeof(int32_t))));

INLINE Vector load(const float *p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE Vector choose(Integers mask, Vector a, Vector b) {
    return (Vector)((mask & (Integers)a) | (~mask & (Integers)b));
}

INLINE Vector largest(Vector a, Vector b) { return choose(a > b, a, b); }

INLINE Vector root(Vector v) {
    Vector result;
    for (int i = 0; i < WIDTH; i++) result[i] = sqrtf(v[i]);
    return result;
}

/* exp(t) for t <= 0 to 3e-7; about 1e-38 below -87. */
INLINE Vector exponential(Vector t) {
    t = largest(t, (Vector){0} - 87.0f);
    Vector shifted = t * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f; /* rounded */
    Vector f = t * 1.44269504f - whole;
    Vector p = 1.333355815e-3f + f * 1.540353039e-4f;
    p = p * f + 9.618129107e-3f;
    p = p * f + 5.550410866e-2f;
    p = p * f + 2.402265070e-1f;
    p = p * f + 6.931471806e-1f;
    p = p * f + 1.0f;
    return (Vector)((Integers)p + (((Integers)shifted - 0x4b400000) << 23));
}

/* Gradients [n, 3] of log sum_j exp(-theta(x_i, y_j) / l) at unit vectors x [n, 3]; y: [3, m], m a multiple
   of BLOCK. theta = sin(theta) p(e^2) for the chord e up to a right angle; beyond it, pi less that of -y. */
void sphere_laplace(int64_t n, int64_t m, float rate, const float *x, const float *y, float *gradient) {
    for (int64_t i = 0; i < n; i++, x += 3, gradient += 3) {
        Vector top = (Vector){0} - 1e30f, total = {0}, sums[3] = {{0}};
        for (int64_t j = 0; j < m; j += BLOCK) {
            Vector logit[VECTORS], over[VECTORS], d[VECTORS][3], before = top;
            for (int v = 0; v < VECTORS; v++) {
                for (int k = 0; k < 3; k++) d[v][k] = load(y + k * m + j + v * WIDTH) - x[k];
                Vector square = d[v][0] * d[v][0] + d[v][1] * d[v][1] + d[v][2] * d[v][2];
                Integers far = square > 2.0f;
                Vector z = largest(choose(far, 4.0f - square, square), (Vector){0} + 1e-12f);
                Vector sine = root(z - 0.25f * z * z);
                Vector p = z * 2.302840839e-5f - 1.382919113e-4f;
                p = p * z + 4.392040122e-4f;
                p = p * z - 6.065905230e-4f;
                p = p * z + 1.035720742e-3f;
                p = p * z + 1.194009070e-3f;
                p = p * z + 7.272748347e-3f;
                p = p * z + 3.331172113e-2f;
                p = p * z + 1.666680555e-1f;
                p = p * z + 1.0f;
                Vector angle = sine * p;
                logit[v] = choose(far, 3.14159265f - angle, angle) * -rate;
                over[v] = rate / sine;
                top = largest(top, logit[v]);
            }
            Vector scale = exponential(before - top);
            total *= scale;
            for (int k = 0; k < 3; k++) sums[k] *= scale;
            for (int v = 0; v < VECTORS; v++) {
                Vector w = exponential(logit[v] - top), a = w * over[v];
                total += w;
                for (int k = 0; k < 3; k++) sums[k] += a * d[v][k];
            }
        }
        float shift = -INFINITY, mass = 0, u[3] = {0}, along = 0;
        for (int lane = 0; lane < WIDTH; lane++) shift = top[lane] > shift ? top[lane] : shift;
        for (int lane = 0; lane < WIDTH; lane++) {
            float w = expf(top[lane] - shift);
            mass += w * total[lane];
            for (int k = 0; k < 3; k++) u[k] += w * sums[k][lane];
        }
        for (int k = 0; k < 3; k++) along += u[k] * x[k];
        for (int k = 0; k < 3; k++) gradient[k] = (u[k] - along * x[k]) / mass;
    }
}
