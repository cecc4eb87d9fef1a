/* Pairs of a query and a tile of references: distances, kernel values, weights and directions. */

#ifndef DRIFT_PAIRS_H
#define DRIFT_PAIRS_H

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define TILE 256 /* most references in a tile */
#define WIDTH 16 /* references and coordinates are padded to a multiple of it */
#define SMALL 4  /* dimensions up to it have loops of their own */
#define GROUP 8  /* queries that share a tile in the first-level cache */
#define INLINE static inline __attribute__((always_inline))

/* Vectors as GCC and Clang have them; the compiler splits them where the processor's are shorter. */
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(WIDTH * sizeof(int32_t))));
typedef float Half __attribute__((vector_size(WIDTH / 2 * sizeof(float))));
typedef double Doubles __attribute__((vector_size(WIDTH / 2 * sizeof(double))));
typedef int64_t Longs __attribute__((vector_size(WIDTH / 2 * sizeof(int64_t))));

enum { EUCLIDEAN, SPHERE, HYPERBOLOID };
enum { LAPLACE, GAUSSIAN, HALF_INTEGER, TABLE_BY_OCTAVE, TABLE_UNIFORM };

/* log k(r) and d log k / dr. */
typedef struct {
    int32_t form, factors; /* factors: nu - 1/2 of a half-integer Matern kernel */
    float rate;            /* 1/l, 1/l^2 or sqrt(2 nu)/l; cells per unit of r of a uniform table */
    int32_t first, last;   /* cells of a table; by octave: bits of r >> shift */
    int32_t shift;
    const float *cubics; /* [cells, 8]: log k and its slope, in powers of the position in the cell */
} Kernel;

typedef struct {
    int32_t geometry, dim, kernels, displacement, own_references, threads;
    int64_t n, m; /* m: references of each query */
    const float *x, *y;
    const float *log_weight; /* of pairs, or NULL */
    int64_t row_stride, column_stride;
    const int64_t *self_index; /* excluded reference of each query, or NULL */
    const Kernel *kernel;
    float *log_density; /* [kernels, n] */
    float *gradient;    /* [kernels, n, dim], or NULL */
    float *sample_size; /* [kernels, n], or NULL */
} Request;

/* References of a tile. */
typedef struct {
    int64_t first;
    int count, padded;          /* count rounded up to a multiple of WIDTH */
    int size;                   /* most references, the stride of a coordinate */
    float *columns;             /* [dim, size] */
    float *rows;                /* [size, width]: the same for the sums over many dimensions */
    float *excess, *inverse;    /* [size]: |y| - 1 and 1 / |y| on the sphere */
    double *lifted;             /* [dim, size]: points of the hyperboloid */
    void *memory;               /* that holds them */
} Tile;

/* A query, and its sums so far. */
typedef struct {
    float excess, inverse;
    double *sums; /* [kernels, 3 + width]: largest logit, weights, squared weights, directions */
} Query;

typedef struct {
    float r[TILE], inverse[TILE], side[TILE]; /* distance, 1 / length of the direction y - side x */
    float logit[TILE], slope[TILE], weight[TILE];
} Scratch;

/* ------------------------------------------------------------------ functions */

INLINE Vector load(const float *p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, Vector v) { memcpy(p, &v, sizeof v); }

INLINE Doubles load_doubles(const double *p) {
    Doubles v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE Doubles load_half(const float *p) {
    Half v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, Doubles);
}

INLINE Vector choose(Ints condition, Vector yes, Vector no) {
    return (Vector)((condition & (Ints)yes) | (~condition & (Ints)no));
}

__attribute__((unused)) /* The larger of two numbers, b if either is NaN. */
INLINE Vector larger(Vector a, Vector b) {
#ifdef __AVX512F__
    return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return choose(a > b, a, b);
#endif
}

INLINE float sum_of(Vector v) {
    float sum = 0;
    for (int k = 0; k < WIDTH; k++) sum += v[k];
    return sum;
}

INLINE double sum_of_doubles(Doubles v) {
    double sum = 0;
    for (int k = 0; k < WIDTH / 2; k++) sum += v[k];
    return sum;
}

/* 1 / sqrt(v) to 2e-7, and 0 for NaN and where v is 0 or too small for a float32. */
INLINE Vector inverse_root(Vector v) {
    Vector y;
#ifdef __AVX512F__
    y = (Vector)_mm512_rsqrt14_ps((__m512)v);
    y *= 1.5f - 0.5f * v * y * y; /* Newton's step */
#else
    for (int k = 0; k < WIDTH; k++) y[k] = 1 / sqrtf(v[k]);
#endif
    return (Vector)((Ints)y & (v > 1e-36f));
}

/* exp(t) for t <= 0, to 2e-7; 0 below -87, NaN for NaN. */
INLINE Vector exp_of(Vector t) {
    Ints tiny = t < -87.0f;
    t = (Vector)((Ints)t & ~tiny);
    Vector shifted = t * 1.44269504f + 12582912.0f; /* rounds to the nearest integer */
    Vector whole = shifted - 12582912.0f;
    Vector f = (t - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Vector p = f * 8.381110539e-3f + 4.191753580e-2f;
    p = p * f + 1.666632567e-1f;
    p = p * f + 4.999886906e-1f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    Vector power = (Vector)(((Ints)shifted + (127 - 0x4b400000)) << 23);
    return (Vector)((Ints)(p * power) & ~tiny);
}

/* log(1 + t) for finite t >= 0, to 1e-7 relative; NaN for NaN. */
INLINE Vector log1p_of(Vector t) {
    Vector u = t + 1.0f;
    Ints exponent = ((Ints)u - 0x3f3504f3) >> 23; /* u = 2^exponent v with v in [sqrt 1/2, sqrt 2) */
    Vector v = (Vector)((Ints)u - (exponent << 23)) - 1.0f;
    Vector f = choose((exponent == 0) | (t != t), t, v);
    Vector p = f * -7.830716258e-2f + 1.301909958e-1f;
    p = p * f - 1.321227883e-1f;
    p = p * f + 1.416073102e-1f;
    p = p * f - 1.661034128e-1f;
    p = p * f + 2.000320609e-1f;
    p = p * f - 2.500157098e-1f;
    p = p * f + 3.333330241e-1f;
    p = p * f - 4.999998832e-1f;
    p = p * f + 1.0f;
    return p * f + __builtin_convertvector(exponent, Vector) * 0.693147181f;
}

/* Coordinates with padding. */
INLINE int width_of(int dim) { return (dim + WIDTH - 1) / WIDTH * WIDTH; }

/* ------------------------------------------------------------------ distances */

/* Hand over pairs: what the sums need if the only kernel is Laplace or Gaussian, else their distances. */
INLINE void emit(int form, const Kernel *kernel, int j, Vector r, Vector inverse, Scratch *s) {
    if (form == LAPLACE) {
        store(s->logit + j, r * -kernel->rate);
        store(s->slope + j, inverse * kernel->rate);
    } else if (form == GAUSSIAN) {
        store(s->logit + j, r * r * (-0.5f * kernel->rate));
        store(s->slope + j, r * inverse * kernel->rate);
    } else {
        store(s->r + j, r);
        store(s->inverse + j, inverse);
    }
}

/* `count` vectors from j on of x . y, or of |y - side x|^2, of one or two queries in any dimension. */
INLINE void vectors(int product, int sided, int count, int queries, int dim, const Tile *tile, const float *x,
                    Scratch *s, int j) {
    const float *y = tile->columns + j;
    int width = width_of(dim);
    Vector sums[2][4] = {{{0}}}, side[2][4], d;
    for (int c = 0; sided && c < queries; c++)
        for (int v = 0; v < count; v++) side[c][v] = load(s[c].side + j + v * WIDTH);
    for (int k = 0; k < dim; k++, y += tile->size)
        for (int v = 0; v < count; v++)
            for (int c = 0; c < queries; c++) {
                d = load(y + v * WIDTH);
                if (product) sums[c][v] += d * x[c * width + k];
                else {
                    if (sided) d -= side[c][v] * x[c * width + k];
                    else d -= x[c * width + k];
                    sums[c][v] += d * d;
                }
            }
    for (int c = 0; c < queries; c++)
        for (int v = 0; v < count; v++) store(s[c].r + j + v * WIDTH, sums[c][v]);
}

INLINE void all_vectors(int product, int sided, int queries, int dim, const Tile *tile, const float *x,
                        Scratch *s) {
    int j = 0;
    for (; j + 4 * WIDTH <= tile->padded; j += 4 * WIDTH)
        vectors(product, sided, 4, queries, dim, tile, x, s, j);
    for (; j < tile->padded; j += WIDTH) vectors(product, sided, 1, queries, dim, tile, x, s, j);
}

/* Squared lengths |y - side x|^2 in s->r, and sides, of one or two queries. */
INLINE void find_squares(int queries, int sided, int dim, const Tile *tile, const float *x, Scratch *s) {
    if (sided) {
        all_vectors(1, 0, queries, dim, tile, x, s);
        for (int c = 0; c < queries; c++)
            for (int j = 0; j < tile->padded; j++) s[c].side[j] = s[c].r[j] < 0 ? -1.0f : 1.0f;
        all_vectors(0, 1, queries, dim, tile, x, s);
    } else
        all_vectors(0, 0, queries, dim, tile, x, s);
}

/* The same of a group of queries. */
INLINE void find_all_squares(int queries, int sided, int dim, const Tile *tile, const float *x, Scratch *s) {
    int c = 0, width = width_of(dim);
    for (; c + 2 <= queries; c += 2) find_squares(2, sided, dim, tile, x + c * width, s + c);
    if (c < queries) find_squares(1, sided, dim, tile, x + c * width, s + c);
}

/* `dim` is a constant up to `SMALL`, and 0 if s->r holds the squares. */
INLINE void euclidean_pairs(int dim, int form, const Kernel *kernel, const Tile *tile, const float *x, Scratch *s) {
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector square = dim ? (Vector){0} : load(s->r + j);
        for (int k = 0; k < dim; k++) {
            Vector d = load(tile->columns + k * tile->size + j) - x[k];
            square += d * d;
        }
        if (form == GAUSSIAN) { /* without the distance: its slope is proportional to it */
            store(s->logit + j, square * (-0.5f * kernel->rate));
            store(s->slope + j, square * 0 + kernel->rate);
        } else {
            Vector inverse = inverse_root(square);
            emit(form, kernel, j, square * inverse, inverse, s);
        }
    }
}

/* With e the chord to y, or to -y beyond a right angle, sin(theta) = e sqrt(1 - e^2/4), and theta, or pi less
   it, is sin(theta) p(e^2): theta / sin(theta) is analytic in e^2 (a fit on [0, 2], error 1e-7). Vectors are
   not exactly of length one: a radial difference is removed. `dim` is a constant up to `SMALL`, and 0 if
   s->r holds the squares and s->side the sides. */
INLINE void sphere_pairs(int dim, int form, const Kernel *kernel, const Tile *tile, const float *x, const Query *q,
                         Scratch *s) {
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector dot = {0}, square = {0}, side;
        for (int k = 0; k < dim; k++) dot += load(tile->columns + k * tile->size + j) * x[k];
        if (dim == 0) {
            side = load(s->side + j);
            square = load(s->r + j);
        } else
            side = (Vector)(((Ints)dot & INT32_MIN) | 0x3f800000); /* 1 with the sign of the product */
        for (int k = 0; k < dim; k++) {
            Vector d = load(tile->columns + k * tile->size + j) - side * x[k];
            square += d * d;
        }
        Vector radial = load(tile->excess + j) - q->excess, norm = load(tile->inverse + j);
        square = (square - radial * radial) * (norm * q->inverse);
        square = (Vector)((Ints)square & ~(square < 0));
        Vector sine2 = square - square * square * 0.25f, inverse = inverse_root(sine2);
        Vector p = square * 7.086433702e-5f - 3.531997378e-4f;
        p = p * square + 1.014450404e-3f;
        p = p * square - 9.000915690e-4f;
        p = p * square + 2.554600166e-3f;
        p = p * square + 6.734256953e-3f;
        p = p * square + 3.341881099e-2f;
        p = p * square + 1.666598233e-1f;
        p = p * square + 1.0f;
        Vector angle = sine2 * inverse * p;
        angle = angle * side + (Vector)((Ints)(angle * 0 + 3.14159265f) & (side < 0));
        store(s->side + j, side);
        emit(form, kernel, j, angle, inverse * norm, s);
    }
}

/* z = sinh^2(r/2) = <y - x, y - x>_L / 4 = (-<x, y>_L - 1) / 2: of a sum of squares less the square of a time
   difference, and a product of times less that of the rest, the one that cancels less. Then
   sinh(r) = 2 sqrt(z) sqrt(1 + z), and r = log(cosh(r) + sinh(r)). x is lifted, time first. */
INLINE void hyperboloid_pairs(int dim, int form, const Kernel *kernel, const Tile *tile, const double *x,
                              Scratch *s) {
    for (int j = 0; j < tile->padded; j += WIDTH / 2) {
        Doubles times = load_doubles(tile->lifted + j), product = times * x[0];
        Doubles time = (times - x[0]) * (times - x[0]), square = -time, rest = product - 1.0;
        for (int k = 1; k < dim; k++) {
            Doubles y = load_doubles(tile->lifted + k * tile->size + j), d = y - x[k];
            square += d * d;
            rest -= y * x[k];
        }
        Longs near = time < product;
        Doubles z2 = (Doubles)((near & (Longs)(square * 0.5)) | (~near & (Longs)rest));
        Half z = __builtin_convertvector(z2 * 0.5, Half);
        memcpy(s->r + j, &z, sizeof z);
    }
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector z = load(s->r + j);
        z = (Vector)((Ints)z & ~(z < 0));
        Vector sinh = inverse_root(z), cosh = inverse_root(z + 1.0f), inverse = sinh * cosh * 0.5f;
        sinh *= z; /* of r/2 */
        cosh *= z + 1.0f;
        emit(form, kernel, j, log1p_of(2 * (z + sinh * cosh)), inverse, s);
    }
}

/* ------------------------------------------------------------------ kernels */

/* log k in closed form for nu = factors + 1/2, and its slope times -1, as `HalfInteger` in kernel/matern.py. */
INLINE void half_integer(const Kernel *kernel, int count, Scratch *s) {
    for (int j = 0; j < count; j += WIDTH) {
        Vector a = load(s->r + j) * kernel->rate, ratio = a + 1.0f, total = log1p_of(a) - a;
        for (int factor = 1; factor < kernel->factors; factor++) {
            Vector excess = a * (a / ratio);
            total += log1p_of(excess / (2.0f * factor + 1));
            ratio = excess + (2.0f * factor + 1);
        }
        store(s->logit + j, total);
        store(s->slope + j, a / ratio * kernel->rate);
    }
}

/* The cells of distances in a table, and the positions in them, from 0 to 1. NaN stays NaN. */
INLINE void find_cells(const Kernel *kernel, int count, const Scratch *s, int32_t *cells, float *positions) {
    for (int j = 0; j < count; j += WIDTH) {
        Vector r = load(s->r + j), position;
        Ints cell;
        if (kernel->form == TABLE_UNIFORM) {
            Vector u = r * kernel->rate;
            cell = __builtin_convertvector(u, Ints);
            cell = cell & (cell >= 0); /* NaN converts to a negative number */
            cell = (cell & (cell <= kernel->last)) | (kernel->last & (cell > kernel->last));
            position = u - __builtin_convertvector(cell, Vector);
        } else { /* high bits name the cell, low bits the position in it */
            Ints bits = (Ints)r, low = bits & ((1 << kernel->shift) - 1);
            cell = (bits >> kernel->shift) - kernel->first;
            position = (Vector)((low << (23 - kernel->shift)) | 0x3f800000) - 1.0f;
            position = choose(r == r, (Vector)((Ints)position & (cell >= 0)), r);
            cell = cell & (cell >= 0);
            int32_t last = kernel->last - kernel->first;
            cell = (cell & (cell <= last)) | (last & (cell > last));
        }
        memcpy(cells + j, &cell, sizeof cell);
        store(positions + j, position);
    }
}

INLINE void tabulated(const Kernel *kernel, int count, Scratch *s) {
    int32_t cells[TILE];
    float cubics[TILE][8], positions[TILE];
    find_cells(kernel, count, s, cells, positions);
    for (int j = 0; j < count; j++) memcpy(cubics[j], kernel->cubics + 8 * (int64_t)cells[j], sizeof cubics[j]);
    for (int j = 0; j < count; j++) {
        const float *c = cubics[j], t = positions[j];
        s->logit[j] = ((c[3] * t + c[2]) * t + c[1]) * t + c[0];
        s->slope[j] = -(((c[7] * t + c[6]) * t + c[5]) * t + c[4]);
    }
}

/* logit = log k, slope = -d log k / dr (or r, for displacements) over the length of the direction. */
INLINE void evaluate(const Kernel *kernel, int displacement, int count, Scratch *s) {
    if (kernel->form == HALF_INTEGER) half_integer(kernel, count, s);
    if (kernel->form > HALF_INTEGER) tabulated(kernel, count, s);
    for (int j = 0; j < count; j += WIDTH) {
        Vector r = load(s->r + j), inverse = load(s->inverse + j);
        if (kernel->form == LAPLACE) emit(LAPLACE, kernel, j, r, inverse, s);
        else if (kernel->form == GAUSSIAN) emit(GAUSSIAN, kernel, j, r, inverse, s);
        else store(s->slope + j, load(s->slope + j) * inverse);
        if (displacement) store(s->slope + j, r * inverse);
    }
}

/* ------------------------------------------------------------------ sums */

/* `dim`, at most `SMALL`, and `sided` are constants; without `sided` every side is 1. */
INLINE void add_small(int sided, int dim, const Tile *tile, const float *x, const Scratch *s, float largest,
                      double *sums) {
    Vector total = {0}, squares = {0}, parts[SMALL] = {{0}};
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector w = exp_of(load(s->logit + j) - largest), a = w * load(s->slope + j);
        total += w;
        squares += w * w;
        for (int k = 0; k < dim; k++) {
            Vector d = load(tile->columns + k * tile->size + j);
            if (sided) d -= load(s->side + j) * x[k];
            else d -= x[k];
            parts[k] += a * d;
        }
    }
    sums[1] += sum_of(total);
    sums[2] += sum_of(squares);
    for (int k = 0; k < dim; k++) sums[3 + k] += sum_of(parts[k]);
}

/* Weights, and their products with the slopes in s->weight. */
INLINE void add_weights(int count, Scratch *s, float largest, double *sums) {
    Vector total = {0}, squares = {0};
    for (int j = 0; j < count; j += WIDTH) {
        Vector w = exp_of(load(s->logit + j) - largest);
        total += w;
        squares += w * w;
        store(s->weight + j, w * load(s->slope + j));
    }
    sums[1] += sum_of(total);
    sums[2] += sum_of(squares);
}

/* Sums of a (y - side x) over a tile for `count` vectors of coordinates of one or two queries; several sums of
   few, so that additions need not wait for one another. */
INLINE void directions(int sided, int count, int queries, int width, const Tile *tile, const float *x,
                       const Scratch *s, double **sums, int first) {
    const float *y = tile->rows + first;
    int lanes = 4 / count;
    Vector total[2][4] = {{{0}}}, at[2][4];
    for (int c = 0; c < queries; c++)
        for (int v = 0; v < count; v++) at[c][v] = load(x + c * width + first + v * WIDTH);
    for (int j = 0; j < tile->padded; j += lanes)
        for (int i = 0; i < lanes; i++, y += width)
            for (int v = 0; v < count; v++)
                for (int c = 0; c < queries; c++) {
                    Vector d = load(y + v * WIDTH);
                    if (sided) d -= s[c].side[j + i] * at[c][v];
                    else d -= at[c][v];
                    total[c][i * count + v] += s[c].weight[j + i] * d;
                }
    for (int c = 0; c < queries; c++)
        for (int v = 0; v < count; v++) {
            for (int i = 1; i < lanes; i++) total[c][v] += total[c][i * count + v];
            for (int k = 0; k < WIDTH; k++) sums[c][first + v * WIDTH + k] += total[c][v][k];
        }
}

INLINE void add_directions(int sided, int queries, int width, const Tile *tile, const float *x, const Scratch *s,
                           double **sums) {
    int k = 0;
    for (; k + 4 * WIDTH <= width; k += 4 * WIDTH)
        directions(sided, 4, queries, width, tile, x, s, sums, k);
    for (; k + 2 * WIDTH <= width; k += 2 * WIDTH)
        directions(sided, 2, queries, width, tile, x, s, sums, k);
    if (k < width) directions(sided, 1, queries, width, tile, x, s, sums, k);
}

/* The same of a group of queries. */
INLINE void add_all_directions(int sided, int queries, int width, const Tile *tile, const float *x,
                               const Scratch *s, double **sums) {
    int c = 0;
    for (; c + 2 <= queries; c += 2) add_directions(sided, 2, width, tile, x + c * width, s + c, sums + c);
    if (c < queries) add_directions(sided, 1, width, tile, x + c * width, s + c, sums + c);
}

/* Sums on the hyperboloid, with the weights in s->weight; `dim` may be a constant. */
INLINE void add_lifted(int dim, const Tile *tile, const Scratch *s, double *sums) {
    for (int first = 0; first < dim; first += 3) {
        Doubles parts[3] = {{0}};
        for (int j = 0; j < tile->padded; j += WIDTH / 2) {
            Doubles a = load_half(s->weight + j);
            for (int k = 0; k < 3 && first + k < dim; k++)
                parts[k] += a * load_doubles(tile->lifted + (first + k) * tile->size + j);
        }
        for (int k = 0; k < 3 && first + k < dim; k++) sums[3 + first + k] += sum_of_doubles(parts[k]);
    }
}

/* ------------------------------------------------------------------ a query and a tile */

/* `form` is a constant: of the only kernel, or -1. */
INLINE void find_pairs(int form, const Request *q, const Tile *tile, const float *x, const double *lifted,
                       const Query *query, Scratch *s) {
    int dim = q->dim;
    const Kernel *kernel = q->kernel;
    if (q->geometry == HYPERBOLOID) {
        if (dim == 3) hyperboloid_pairs(3, form, kernel, tile, lifted, s);
        else hyperboloid_pairs(dim, form, kernel, tile, lifted, s);
    } else if (q->geometry == SPHERE) {
        if (dim == 2) sphere_pairs(2, form, kernel, tile, x, query, s);
        else if (dim == 3) sphere_pairs(3, form, kernel, tile, x, query, s);
        else if (dim == 4) sphere_pairs(4, form, kernel, tile, x, query, s);
        else sphere_pairs(0, form, kernel, tile, x, query, s);
    } else if (dim == 1) euclidean_pairs(1, form, kernel, tile, x, s);
    else if (dim == 2) euclidean_pairs(2, form, kernel, tile, x, s);
    else if (dim == 3) euclidean_pairs(3, form, kernel, tile, x, s);
    else if (dim == 4) euclidean_pairs(4, form, kernel, tile, x, s);
    else euclidean_pairs(0, form, kernel, tile, x, s);
}

/* Add the log-weights to the logits, and return the largest (ignoring NaN). */
INLINE float weigh(const Request *q, const Tile *tile, int64_t i, Scratch *s) {
    if (q->log_weight) {
        const float *w = q->log_weight + i * q->row_stride + tile->first * q->column_stride;
        for (int j = 0; j < tile->count; j++) s->logit[j] += w[j * q->column_stride];
    }
    if (q->self_index) {
        int64_t own = q->self_index[i] - tile->first;
        if (own >= 0 && own < tile->count) s->logit[own] = -INFINITY;
    }
    for (int j = tile->count; j < tile->padded; j++) s->logit[j] = -INFINITY;
    Vector most = load(s->logit);
    for (int j = WIDTH; j < tile->padded; j += WIDTH) {
        Vector logit = load(s->logit + j);
        most = larger(logit, most);
    }
    float largest = -INFINITY;
    for (int k = 0; k < WIDTH; k++) largest = most[k] > largest ? most[k] : largest;
    return largest;
}

/* Raise the largest logit of a query, to which its sums are relative. */
INLINE float raise(int width, float largest, double *sums) {
    if (largest > sums[0]) {
        double factor = exp(sums[0] - largest);
        sums[0] = largest;
        sums[1] *= factor;
        sums[2] *= factor * factor;
        for (int k = 0; k < width; k++) sums[3 + k] *= factor;
    }
    return sums[0] == -INFINITY ? 0 : (float)sums[0];
}

/* ------------------------------------------------------------------ threads */

/* Call a function in `count` threads, this one included, or in as many as the system gives. */
INLINE void run_threads(int64_t count, void *(*function)(void *), void *argument) {
    pthread_t *threads = calloc(count > 1 ? count : 1, sizeof *threads);
    int started = 0;
    while (threads && started < count - 1 && pthread_create(threads + started, NULL, function, argument) == 0)
        started++;
    function(argument);
    for (int t = 0; t < started; t++) pthread_join(threads[t], NULL);
    free(threads);
}

/* ------------------------------------------------------------------ tiles */

INLINE double norm_of(int dim, const float *x) {
    double square = 0;
    for (int k = 0; k < dim; k++) square += (double)x[k] * x[k];
    return sqrt(square);
}

/* The time coordinate that the others imply, and those, in float64. */
INLINE void lift(int dim, const float *x, double *lifted, int64_t stride) {
    double square = 1;
    for (int k = 1; k < dim; k++) {
        lifted[k * stride] = x[k];
        square += (double)x[k] * x[k];
    }
    lifted[0] = sqrt(square);
}

/* References in a tile: as many as keep two copies of it within 32 kB, and no more than there are. */
INLINE int tile_size(int dim, int64_t m) {
    int size = 4096 / dim / WIDTH * WIDTH;
    size = size < WIDTH ? WIDTH : size > TILE ? TILE : size;
    return m < size ? width_of((int)m) : size;
}

INLINE int tile_alloc(const Request *q, int size, Tile *tile) {
    size_t dim = q->dim, width = q->dim > SMALL ? width_of(q->dim) : 0;
    *tile = (Tile){.size = size};
    size_t points = q->geometry == HYPERBOLOID ? 2 * dim : dim + width + 2;
    float *memory = tile->memory = calloc(points * size, sizeof(float));
    if (q->geometry == HYPERBOLOID) tile->lifted = tile->memory;
    else {
        tile->excess = memory;
        tile->inverse = memory + size;
        tile->columns = memory + 2 * size;
        tile->rows = memory + (2 + dim) * size;
    }
    return memory != NULL;
}

/* `count` references, `stride` numbers apart, from the one with index `first` on. */
INLINE void pack(const Request *q, Tile *tile, const float *y, int64_t stride, int64_t first, int count) {
    int dim = q->dim, width = width_of(dim);
    tile->first = first;
    tile->count = count;
    tile->padded = width_of(count);
    for (int j = 0; j < tile->padded; j++) {
        const float *point = y + (first + (j < count ? j : 0)) * stride; /* padding: any point, without weight */
        if (q->geometry == HYPERBOLOID) {
            lift(dim, point, tile->lifted + j, tile->size);
            continue;
        }
        for (int k = 0; k < dim; k++) tile->columns[k * tile->size + j] = point[k];
        if (dim > SMALL) memcpy(tile->rows + (int64_t)j * width, point, dim * sizeof *point);
        if (q->geometry == SPHERE) {
            double norm = norm_of(dim, point);
            tile->excess[j] = (float)(norm - 1);
            tile->inverse[j] = (float)(1 / norm);
        }
    }
}

#endif
