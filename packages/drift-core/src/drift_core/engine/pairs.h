/* Pairs of a query and a tile of references: distances, kernel values, weights and directions. */

#ifndef DRIFT_PAIRS_H
#define DRIFT_PAIRS_H

#include "threads.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

/* Numbers in a vector of the processor, and vectors of sums that it keeps in registers for each of a group of
   queries. Where vectors are wider than the processor's, GCC keeps them in memory. */
#if defined __AVX512F__
#define WIDTH 16
#define VECTORS 4
#elif defined __AVX__
#define WIDTH 8
#define VECTORS 2
#else
#define WIDTH 4
#define VECTORS 2
#endif
#define TILE 256 /* most references in a tile */
#define SMALL 4  /* dimensions up to it have loops of their own */
#define GROUP 4  /* queries that are multiplied by a tile of many dimensions at once */
#define NEAR 8   /* squared distances are of differences if this multiple is below those from the centre */
#define INLINE static inline __attribute__((always_inline))

/* Vectors as GCC and Clang have them. References and coordinates are padded to whole ones. */
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(WIDTH * sizeof(int32_t))));
typedef float Half __attribute__((vector_size(WIDTH / 2 * sizeof(float))));
typedef double Doubles __attribute__((vector_size(WIDTH / 2 * sizeof(double))));
typedef int64_t Longs __attribute__((vector_size(WIDTH / 2 * sizeof(int64_t))));

/* The same vectors for instructions of the processor. */
#ifdef __SSE2__
#if defined __AVX512F__
typedef __m512 Register;
#define LANES(name) _mm512_##name##_ps
#elif defined __AVX__
typedef __m256 Register;
#define LANES(name) _mm256_##name##_ps
#else
typedef __m128 Register;
#define LANES(name) _mm_##name##_ps
#endif
#endif

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
    float *columns;             /* [dim, size]; in many dimensions less their centre */
    float *rows;                /* [size, width]: the same for sums */
    float *points;              /* [size, width]: in many dimensions, the references themselves */
    float *square;              /* [size]: squared distances from the centre */
    float *excess, *inverse;    /* [size]: |y| - 1 and 1 / |y| on the sphere */
    double *lifted;             /* [dim, size]: points of the hyperboloid */
    double farthest;            /* the largest of their time coordinates */
    void *memory;               /* that holds them */
} Tile;

/* A query, and its sums so far. */
typedef struct {
    float excess, inverse, square; /* as those of references */
    float *point;                  /* [3, width]: itself, the centre of the references, and their difference */
    double *sums;                  /* [kernels, 3 + width]: largest logit, weights, squared weights, directions */
} Query;

typedef struct {
    float r[TILE], inverse[TILE], side[TILE]; /* distance, 1 / length of the direction y - side x */
    float logit[TILE], slope[TILE], weight[TILE];
    int32_t near[TILE]; /* references so near to a query that products cancel, and how many */
    int count;
} Scratch;

/* ------------------------------------------------------------------ functions */

INLINE Vector load(const float *p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The same, kept in a register: GCC would load it anew for every use. */
INLINE Vector load_once(const float *p) {
    Vector v = load(p);
#ifdef __SSE2__
    __asm__("" : "+v"(v));
#endif
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

/* v, or -v where the sign of a number is negative; other ports of a processor do it than multiply. */
INLINE Vector signed_by(Vector sign, Vector v) { return (Vector)((Ints)v ^ ((Ints)sign & INT32_MIN)); }

/* The larger of two numbers, and the smaller; b if either is NaN. */
#ifdef __SSE2__
INLINE Vector larger(Vector a, Vector b) { return (Vector)LANES(max)((Register)a, (Register)b); }
INLINE Vector smaller(Vector a, Vector b) { return (Vector)LANES(min)((Register)a, (Register)b); }
#else
INLINE Vector larger(Vector a, Vector b) { return choose(a > b, a, b); }
INLINE Vector smaller(Vector a, Vector b) { return choose(a < b, a, b); }
#endif

INLINE float sum_of(Vector v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)v);
#else
    float sum = 0;
    for (int k = 0; k < WIDTH; k++) sum += v[k];
    return sum;
#endif
}

INLINE int is_any(Ints condition) {
    int64_t any = 0;
    for (int k = 0; k < WIDTH / 2; k++) any |= ((Longs)condition)[k];
    return any != 0;
}

INLINE double sum_of_doubles(Doubles v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_pd((__m512d)v);
#else
    double sum = 0;
    for (int k = 0; k < WIDTH / 2; k++) sum += v[k];
    return sum;
#endif
}

/* Half of a positive number. */
INLINE Vector half_of(Vector v) { return (Vector)((Ints)v - (1 << 23)); }

/* 1 / sqrt(v) to 2e-7, and 0 for NaN and where v is 0 or too small for a float32. */
INLINE Vector inverse_root(Vector v) {
    Vector y;
#ifdef __AVX__
#ifdef __AVX512F__
    y = (Vector)_mm512_rsqrt14_ps((__m512)v);
#else
    y = (Vector)_mm256_rsqrt_ps((__m256)v); /* to 4e-4 */
#endif
    y += half_of(y) * (1.0f - v * y * y); /* Newton's step */
#else
    for (int k = 0; k < WIDTH; k++) y[k] = 1 / sqrtf(v[k]);
#endif
    return (Vector)((Ints)y & (v > 1e-36f));
}

/* 1 / sqrt(a b), without the product; 0 where a is 0 or NaN or too small for a float32. */
INLINE Vector inverse_root_of_product(Vector a, Vector b) {
#ifdef __AVX512F__
    Vector y = (Vector)_mm512_rsqrt14_ps((__m512)a) * (Vector)_mm512_rsqrt14_ps((__m512)b);
    y += half_of(y) * (1.0f - (a * y) * (b * y));
    return (Vector)((Ints)y & (a > 1e-36f));
#else
    return inverse_root(a) * inverse_root(b);
#endif
}

/* exp(t) for t <= 0, its error below 2e-7; 0 below -87, NaN for NaN. */
INLINE Vector exp_of(Vector t) {
    Vector shifted = t * 1.44269504f + 12582912.0f; /* rounds to the nearest integer */
    Vector whole = shifted - 12582912.0f, f = t * 1.44269504f - whole;
    Vector p = f * 1.326472712e-3f + 9.671512645e-3f;
    p = p * f + 5.550733743e-2f;
    p = p * f + 2.402224209e-1f;
    p = p * f + 6.931469776e-1f;
    p = p * f + 1.0f;
#ifdef __AVX512F__
    __mmask16 large = _mm512_cmp_ps_mask((__m512)t, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    return (Vector)_mm512_maskz_scalef_ps(large, (__m512)p, (__m512)whole);
#else
    return (Vector)(((Ints)p + ((Ints)shifted << 23)) & ~(t < -87.0f));
#endif
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
INLINE void emit(int form, const Kernel *kernel, int j, Vector r, Vector inverse, Scratch *restrict s) {
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

/* Products of queries and `count` vectors of references from j on, both less the centre. */
INLINE void multiply(int queries, int count, int dim, const Tile *tile, const Query *query, Scratch *restrict s,
                     int j) {
    const float *y = tile->columns + j, *x[GROUP];
    Vector sums[GROUP][VECTORS] = {{{0}}};
    for (int c = 0; c < queries; c++) x[c] = query[c].point + 2 * width_of(dim);
    for (int k = 0; k < dim; k++, y += tile->size)
        for (int v = 0; v < count; v++) {
            Vector at = load_once(y + v * WIDTH);
            for (int c = 0; c < queries; c++) sums[c][v] += at * x[c][k];
        }
    for (int c = 0; c < queries; c++)
        for (int v = 0; v < count; v++) store(s[c].r + j + v * WIDTH, sums[c][v]);
}

INLINE void multiply_all(int queries, int dim, const Tile *tile, const Query *query, Scratch *restrict s) {
    int j = 0;
    for (; j + VECTORS * WIDTH <= tile->padded; j += VECTORS * WIDTH)
        multiply(queries, VECTORS, dim, tile, query, s, j);
    for (; j < tile->padded; j += WIDTH) multiply(queries, 1, dim, tile, query, s, j);
}

/* |y - side x|^2 of a reference. */
INLINE float square_between(int width, const float *y, float side, const float *x) {
    Vector sum = {0};
    for (int k = 0; k < width; k += WIDTH) {
        Vector d = load(y + k) - side * load(x + k);
        sum += d * d;
    }
    return sum_of(sum);
}

/* Squares |y - side x|^2 in s->r, of products there: of x and y less the centre, |x|^2 + |y|^2 - 2 x . y. On the
   sphere |y + x|^2 is what is missing to 2 |x|^2 + 2 |y|^2. Where most of a sum cancels, of differences. */
INLINE void find_squares(int sided, int width, const Tile *tile, const Query *query, Scratch *restrict s) {
    Ints any = {0};
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector whole = load(tile->square + j) + query->square, square = whole - 2 * load(s->r + j);
        if (sided) {
            Vector norm = load(tile->excess + j) + 1.0f;
            Vector sum = 2 * (norm * norm + (1 + query->excess) * (1 + query->excess));
            Ints far = square * 2 > sum;
            square = choose(far, sum - square, square);
            whole = choose(far, sum, whole);
            store(s->side + j, (Vector)((far & INT32_MIN) | 0x3f800000)); /* -1 or 1 */
        }
        Ints near = ~(square * NEAR > whole);
        any |= near;
        store(s->r + j, (Vector)((Ints)square | near)); /* NaN */
    }
    s->count = 0;
    if (!is_any(any)) return;
    for (int j = 0; j < tile->padded; j++) {
        s->near[s->count] = j;
        s->count += s->r[j] != s->r[j];
    }
    for (int i = 0; i < s->count; i++) {
        int j = s->near[i];
        s->r[j] = square_between(width, tile->points + (int64_t)j * width, sided ? s->side[j] : 1, query->point);
    }
}

/* Squares in s->r, and sides, of a group of queries. */
INLINE void find_all_squares(int queries, int sided, int dim, const Tile *tile, const Query *query,
                             Scratch *restrict s) {
    if (queries == GROUP) multiply_all(GROUP, dim, tile, query, s);
    else for (int c = 0; c < queries; c++) multiply_all(1, dim, tile, query + c, s + c);
    for (int c = 0; c < queries; c++) find_squares(sided, width_of(dim), tile, query + c, s + c);
}

/* The same of one query in few dimensions; `dim` is a constant. */
INLINE void find_small_squares(int sided, int dim, const Tile *tile, const float *x, Scratch *restrict s) {
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector dot = {0}, square = {0}, y[SMALL];
        for (int k = 0; k < dim; k++) {
            y[k] = load(tile->columns + k * tile->size + j);
            if (sided) dot += y[k] * x[k];
        }
        for (int k = 0; k < dim; k++) {
            Vector at = (Vector){0} + x[k], d = y[k] - (sided ? signed_by(dot, at) : at);
            square += d * d;
        }
        store(s->r + j, square);
        if (sided) store(s->side + j, (Vector)(((Ints)dot & INT32_MIN) | 0x3f800000)); /* 1 with the sign of dot */
    }
}

/* Of the squares in s->r. Without a distance for a Gaussian: its slope is proportional to it. */
INLINE void euclidean_pairs(int form, const Kernel *kernel, int count, Scratch *restrict s) {
    for (int j = 0; j < count; j += WIDTH) {
        Vector square = load(s->r + j);
        if (form == GAUSSIAN) {
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
   not exactly of length one: a radial difference is removed. Of the squares in s->r, and sides. Two loops, whose
   constants fit into the registers. */
INLINE void sphere_pairs(int form, const Kernel *kernel, const Tile *tile, const Query *q, Scratch *restrict s) {
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector radial = load(tile->excess + j) - q->excess;
        Vector square = (load(s->r + j) - radial * radial) * (load(tile->inverse + j) * q->inverse);
        store(s->r + j, (Vector)((Ints)square & ~(square < 0)));
    }
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector square = load(s->r + j), norm = load(tile->inverse + j), side = load(s->side + j);
        Vector sine2 = square - square * square * 0.25f, inverse = inverse_root(sine2);
        Vector p = square * 7.086433702e-5f - 3.531997378e-4f;
        p = p * square + 1.014450404e-3f;
        p = p * square - 9.000915690e-4f;
        p = p * square + 2.554600166e-3f;
        p = p * square + 6.734256953e-3f;
        p = p * square + 3.341881099e-2f;
        p = p * square + 1.666598233e-1f;
        p = p * square + 1.0f;
        Vector angle = sine2 * inverse * p, pi = (Vector){0} + 3.14159265f;
        angle = (Vector)((Ints)pi & (side < 0)) + signed_by(side, angle);
        emit(form, kernel, j, angle, inverse * norm, s);
    }
}

/* cosh(r) - 1 = -<x, y>_L - 1 as float32 in s->r. x is lifted, time first. Returns whether one of them
   is so small that the product has cancelled. */
INLINE int lorentz_products(int dim, const Tile *tile, const double *x, Scratch *restrict s) {
    Vector limit = (Vector){0} + (float)(1e-8 * tile->farthest * x[0]);
    Ints any = {0};
    for (int j = 0; j < tile->padded; j += WIDTH / 2) {
        Doubles z = load_doubles(tile->lifted + j) * x[0] - 1.0;
        for (int k = 1; k < dim; k++) z -= load_doubles(tile->lifted + k * tile->size + j) * x[k];
        Half narrow = __builtin_convertvector(z, Half);
        memcpy(s->r + j, &narrow, sizeof narrow);
    }
    for (int j = 0; j < tile->padded; j += WIDTH) any |= load(s->r + j) < limit;
    return is_any(any);
}

/* The same of the product less 1, or of <y - x, y - x>_L / 2, a sum of squares less the square of a time
   difference: whichever cancels less. */
INLINE void lorentz_squares(int dim, const Tile *tile, const double *x, Scratch *restrict s) {
    for (int j = 0; j < tile->padded; j += WIDTH / 2) {
        Doubles times = load_doubles(tile->lifted + j), product = times * x[0];
        Doubles time = (times - x[0]) * (times - x[0]), square = -time, rest = product - 1.0;
        for (int k = 1; k < dim; k++) {
            Doubles y = load_doubles(tile->lifted + k * tile->size + j), d = y - x[k];
            square += d * d;
            rest -= y * x[k];
        }
        Longs near = time < product;
        Doubles z = (Doubles)((near & (Longs)(square * 0.5)) | (~near & (Longs)rest));
        Half narrow = __builtin_convertvector(z, Half);
        memcpy(s->r + j, &narrow, sizeof narrow);
    }
}

/* With z = cosh(r) - 1, sinh(r) = sqrt(z (z + 2)), and r = log(cosh(r) + sinh(r)). Two loops, since a processor
   looks ahead no further than a few vectors of the two in one. */
INLINE void hyperboloid_pairs(int dim, int form, const Kernel *kernel, const Tile *tile, const double *x,
                              Scratch *restrict s) {
    if (lorentz_products(dim, tile, x, s)) lorentz_squares(dim, tile, x, s);
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector z = load(s->r + j);
        z = (Vector)((Ints)z & ~(z < 0));
        Vector inverse = inverse_root_of_product(z, z + 2.0f);
        store(s->r + j, z * ((z + 2.0f) * inverse) + z);
        store(s->inverse + j, inverse);
    }
    for (int j = 0; j < tile->padded; j += WIDTH)
        emit(form, kernel, j, log1p_of(load(s->r + j)), load(s->inverse + j), s);
}

/* ------------------------------------------------------------------ kernels */

/* log k in closed form for nu = factors + 1/2, and its slope times -1, as `HalfInteger` in kernel/matern.py. */
INLINE void half_integer(const Kernel *kernel, int count, Scratch *restrict s) {
    for (int j = 0; j < count; j += WIDTH) {
        Vector a = load(s->r + j) * kernel->rate, ratio = a + 1.0f, total = log1p_of(a) - a;
        for (int factor = 1; factor < kernel->factors; factor++) {
            Vector excess = a * (a / ratio);
            total += log1p_of(excess / (2.0f * factor + 1));
            ratio = excess + (2.0f * factor + 1);
        }
        store(s->logit + j, total);
        store(s->slope + j, a / ratio * kernel->rate * load(s->inverse + j));
    }
}

/* The cells of distances in a table, and the positions in them, from 0 to 1, or NaN. */
INLINE void find_cells(const Kernel *kernel, int count, const Scratch *s, int32_t *cells, float *positions) {
    Ints bits = {0};
    Vector least = (Vector)(bits + (kernel->first << kernel->shift)), last = (Vector){0} + (float)kernel->last;
    Vector most = (Vector)(bits + ((kernel->last + 1) << kernel->shift) - 1);
    for (int j = 0; j < count; j += WIDTH) {
        Vector r = load(s->r + j), position;
        Ints cell;
        if (kernel->form == TABLE_UNIFORM) {
            Vector u = r * kernel->rate;
            cell = __builtin_convertvector(larger(smaller(u, last), (Vector){0}), Ints);
            position = u - __builtin_convertvector(cell, Vector);
        } else { /* high bits name the cell, low bits the position in it */
            bits = (Ints)smaller(larger(r, least), most);
            cell = (bits >> kernel->shift) - kernel->first;
            bits = ((bits & ((1 << kernel->shift) - 1)) << (23 - kernel->shift)) | 0x3f800000;
            position = (Vector)((Ints)((Vector)bits - 1.0f) | (r != r));
        }
        memcpy(cells + j, &cell, sizeof cell);
        store(positions + j, position);
    }
}

#ifdef __SSE2__
/* Four numbers of each of the cells 0, 4, ..., in lanes of four. */
INLINE Register load_lanes(const float *numbers, const int32_t *cells) {
    __m128 lane[WIDTH / 4];
    for (int i = 0; i < WIDTH / 4; i++) lane[i] = _mm_loadu_ps(numbers + 8 * (int64_t)cells[4 * i]);
#ifdef __AVX__
    __m256 two = _mm256_insertf128_ps(_mm256_castps128_ps256(lane[0]), lane[1], 1);
#ifdef __AVX512F__
    __m256 others = _mm256_insertf128_ps(_mm256_castps128_ps256(lane[2]), lane[3], 1);
    return (__m512)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)two), (__m256d)others, 1);
#else
    return two;
#endif
#else
    return lane[0];
#endif
}

/* columns[k]: the k-th of four numbers of a vector of cells. Lanes of four rows are transposed. */
INLINE void load_columns(const float *numbers, const int32_t *cells, Vector *columns) {
    Register rows[4], low[2], high[2];
    for (int i = 0; i < 4; i++) rows[i] = load_lanes(numbers, cells + i);
    for (int i = 0; i < 2; i++) {
        low[i] = LANES(unpacklo)(rows[2 * i], rows[2 * i + 1]);
        high[i] = LANES(unpackhi)(rows[2 * i], rows[2 * i + 1]);
    }
    columns[0] = (Vector)LANES(shuffle)(low[0], low[1], 0x44);
    columns[1] = (Vector)LANES(shuffle)(low[0], low[1], 0xee);
    columns[2] = (Vector)LANES(shuffle)(high[0], high[1], 0x44);
    columns[3] = (Vector)LANES(shuffle)(high[0], high[1], 0xee);
}
#else
INLINE void load_columns(const float *numbers, const int32_t *cells, Vector *columns) {
    for (int i = 0; i < WIDTH; i++)
        for (int k = 0; k < 4; k++) columns[k][i] = numbers[8 * (int64_t)cells[i] + k];
}
#endif

INLINE void tabulated(const Kernel *kernel, int count, Scratch *restrict s) {
    int32_t cells[TILE];
    float positions[TILE];
    find_cells(kernel, count, s, cells, positions);
    for (int j = 0; j < count; j += WIDTH) {
        Vector log[4], slope[4], t = load(positions + j);
        load_columns(kernel->cubics, cells + j, log);
        load_columns(kernel->cubics + 4, cells + j, slope);
        store(s->logit + j, ((log[3] * t + log[2]) * t + log[1]) * t + log[0]);
        store(s->slope + j, -(((slope[3] * t + slope[2]) * t + slope[1]) * t + slope[0]) * load(s->inverse + j));
    }
}

/* logit = log k, slope = -d log k / dr (or r, for displacements) over the length of the direction. */
INLINE void evaluate(const Kernel *kernel, int displacement, int count, Scratch *restrict s) {
    if (kernel->form == HALF_INTEGER) half_integer(kernel, count, s);
    else if (kernel->form > HALF_INTEGER) tabulated(kernel, count, s);
    else
        for (int j = 0; j < count; j += WIDTH) {
            Vector r = load(s->r + j), inverse = load(s->inverse + j);
            if (kernel->form == LAPLACE) emit(LAPLACE, kernel, j, r, inverse, s);
            else emit(GAUSSIAN, kernel, j, r, inverse, s);
        }
    for (int j = 0; displacement && j < count; j += WIDTH)
        store(s->slope + j, load(s->r + j) * load(s->inverse + j));
}

/* ------------------------------------------------------------------ sums */

/* Weights, and their products with the slopes in s->weight. */
INLINE void add_weights(int count, Scratch *restrict s, float largest, double *sums) {
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

/* `dim`, at most `SMALL`, and `sided` are constants; without `sided` every side is 1. */
INLINE void add_small(int sided, int dim, const Tile *tile, const float *x, Scratch *restrict s,
                      float largest, double *sums) {
    Vector parts[SMALL] = {{0}};
    add_weights(tile->padded, s, largest, sums);
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector a = load(s->weight + j);
        for (int k = 0; k < dim; k++) {
            Vector d = load(tile->columns + k * tile->size + j);
            if (sided) d -= signed_by(load(s->side + j), (Vector){0} + x[k]);
            else d -= x[k];
            parts[k] += a * d;
        }
    }
    for (int k = 0; k < dim; k++) sums[3 + k] += sum_of(parts[k]);
}

/* Products of weights and `count` vectors of coordinates of references, less the centre, of some queries;
   several sums of few, so that additions need not wait for one another. */
INLINE void directions(int queries, int count, int width, const Tile *tile, const Scratch *s, double **sums,
                       int first) {
    const float *y = tile->rows + first;
    int lanes = VECTORS / count;
    Vector total[GROUP][VECTORS] = {{{0}}};
    for (int j = 0; j < tile->padded; j += lanes)
        for (int i = 0; i < lanes; i++, y += width)
            for (int v = 0; v < count; v++) {
                Vector at = load_once(y + v * WIDTH);
                for (int c = 0; c < queries; c++) total[c][i * count + v] += s[c].weight[j + i] * at;
            }
    for (int c = 0; c < queries; c++)
        for (int v = 0; v < count; v++) {
            for (int i = 1; i < lanes; i++) total[c][v] += total[c][i * count + v];
            for (int k = 0; k < WIDTH; k++) sums[c][first + v * WIDTH + k] += total[c][v][k];
        }
}

INLINE void add_rows(int queries, int width, const Tile *tile, const Scratch *s, double **sums) {
    int k = 0;
    for (; k + VECTORS * WIDTH <= width; k += VECTORS * WIDTH)
        directions(queries, VECTORS, width, tile, s, sums, k);
    if (k + 2 * WIDTH <= width) { /* of four */
        directions(queries, 2, width, tile, s, sums, k);
        k += 2 * WIDTH;
    }
    if (k < width) directions(queries, 1, width, tile, s, sums, k);
}

/* Sums of a (y - side x) over the references near to a query, for `count` vectors of coordinates. */
INLINE void near_directions(int sided, int count, int width, const Tile *tile, const float *x,
                            const Scratch *s, double *sums, int first) {
    Vector total[VECTORS] = {{0}};
    for (int i = 0; i < s->count; i++) {
        int j = s->near[i];
        float side = sided ? s->side[j] : 1;
        const float *y = tile->points + (int64_t)j * width + first;
        for (int v = 0; v < count; v++)
            total[v] += s->weight[j] * (load(y + v * WIDTH) - side * load(x + first + v * WIDTH));
    }
    for (int v = 0; v < count; v++)
        for (int k = 0; k < WIDTH; k++) sums[first + v * WIDTH + k] += total[v][k];
}

/* The same for all coordinates. Then weights of these references become 0; and of the others, whose products
   are added elsewhere, what the centre adds to them. On the sphere multiples of x do not count. */
INLINE void add_near(int sphere, int sided, int width, const Tile *tile, const Query *query, Scratch *restrict s,
                     double *sums) {
    int k = 0;
    for (; s->count && k + VECTORS * WIDTH <= width; k += VECTORS * WIDTH)
        near_directions(sided, VECTORS, width, tile, query->point, s, sums, k);
    for (; s->count && k < width; k += WIDTH) near_directions(sided, 1, width, tile, query->point, s, sums, k);
    for (int i = 0; i < s->count; i++) s->weight[s->near[i]] = 0;
    Vector weights = {0};
    for (int j = 0; j < tile->padded; j += WIDTH) weights += load(s->weight + j);
    double total = sum_of(weights);
    const float *offset = query->point + (sphere ? width : 2 * width);
    for (k = 0; k < width; k++) sums[k] += (sphere ? total : -total) * offset[k];
}

/* Sums of a (y - side x) of a group of queries, with the weights in s->weight. */
INLINE void add_all_directions(int sphere, int sided, int queries, int width, const Tile *tile,
                               const Query *query, Scratch *restrict s, double **sums) {
    for (int c = 0; c < queries; c++) add_near(sphere, sided, width, tile, query + c, s + c, sums[c]);
    if (queries == GROUP) add_rows(GROUP, width, tile, s, sums);
    else for (int c = 0; c < queries; c++) add_rows(1, width, tile, s + c, sums + c);
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
INLINE void find_pairs(int form, const Request *q, const Tile *tile, const double *lifted, const Query *query,
                       Scratch *restrict s) {
    int dim = q->dim;
    const float *x = query->point;
    const Kernel *kernel = q->kernel;
    if (q->geometry == HYPERBOLOID) {
        if (dim == 3) hyperboloid_pairs(3, form, kernel, tile, lifted, s);
        else hyperboloid_pairs(dim, form, kernel, tile, lifted, s);
    } else if (q->geometry == SPHERE) {
        if (dim == 2) find_small_squares(1, 2, tile, x, s);
        else if (dim == 3) find_small_squares(1, 3, tile, x, s);
        else if (dim == 4) find_small_squares(1, 4, tile, x, s);
        sphere_pairs(form, kernel, tile, query, s);
    } else {
        if (dim == 1) find_small_squares(0, 1, tile, x, s);
        else if (dim == 2) find_small_squares(0, 2, tile, x, s);
        else if (dim == 3) find_small_squares(0, 3, tile, x, s);
        else if (dim == 4) find_small_squares(0, 4, tile, x, s);
        euclidean_pairs(form, kernel, tile->padded, s);
    }
}

/* Add the log-weights to the logits, and return the largest (ignoring NaN). */
INLINE float weigh(const Request *q, const Tile *tile, int64_t i, Scratch *restrict s) {
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

/* The references of a tile from the first to the last that log-weights do not exclude for all of the queries
   i, i + 1, ..., in whole vectors; of a drift problem of its own, a sample meets a few of a large batch. */
INLINE Tile met_by(int queries, const Request *q, const Tile *tile, int64_t i) {
    int first = tile->count, end = 0, many = q->geometry != HYPERBOLOID, width = q->dim > SMALL ? width_of(q->dim) : 0;
    if (!q->log_weight) return *tile;
    for (int c = 0; c < queries; c++) {
        const float *w = q->log_weight + (i + c) * q->row_stride + tile->first * q->column_stride;
        int lowest = 0, highest = tile->count;
        while (lowest < first && w[lowest * q->column_stride] == -INFINITY) lowest++;
        while (highest > end && w[(highest - 1) * q->column_stride] == -INFINITY) highest--;
        first = lowest < first ? lowest : first;
        end = highest > end ? highest : end;
    }
    Tile part = *tile;
    first -= first % WIDTH;
    part.first += first;
    part.count = end - first;
    part.padded = end > first ? width_of(end - first) : 0;
    if (many) {
        part.columns += first;
        part.rows += (int64_t)first * width;
        part.points += (int64_t)first * width;
        part.square += first;
        part.excess += first;
        part.inverse += first;
    } else
        part.lifted += first;
    return part;
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

/* ------------------------------------------------------------------ tiles */

INLINE double norm_of(int dim, const float *x) {
    double square = 0;
    for (int k = 0; k < dim; k++) square += (double)x[k] * x[k];
    return sqrt(square);
}

INLINE float square_of(int width, const float *x) {
    Vector sum = {0};
    for (int k = 0; k < width; k += WIDTH) sum += load(x + k) * load(x + k);
    return sum_of(sum);
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

/* References in a tile: as many as keep two copies of it within 128 kB, and no more than there are. */
INLINE int tile_size(int dim, int64_t m) {
    int size = 16384 / dim / WIDTH * WIDTH;
    size = size < WIDTH ? WIDTH : size > TILE ? TILE : size;
    return m < size ? width_of((int)m) : size;
}

INLINE int tile_alloc(const Request *q, int size, Tile *tile) {
    size_t dim = q->dim, width = q->dim > SMALL ? width_of(q->dim) : 0;
    *tile = (Tile){.size = size};
    size_t numbers = q->geometry == HYPERBOLOID ? 2 * dim : dim + 2 * width + 3;
    float *memory = tile->memory = calloc(numbers * size, sizeof(float));
    if (q->geometry == HYPERBOLOID) tile->lifted = tile->memory;
    else {
        tile->excess = memory;
        tile->inverse = memory + size;
        tile->square = memory + 2 * size;
        tile->columns = memory + 3 * size;
        tile->rows = memory + (3 + dim) * size;
        tile->points = memory + (3 + dim + width) * size;
    }
    return memory != NULL;
}

/* The mean of some references, evenly spaced; 0 in few dimensions. */
INLINE void find_centre(int dim, const float *y, int64_t m, int64_t stride, float *centre) {
    int64_t count = m < 64 ? m : 64;
    memset(centre, 0, width_of(dim) * sizeof *centre);
    if (dim <= SMALL) return;
    for (int64_t j = 0; j < count; j++)
        for (int k = 0; k < dim; k++) centre[k] += y[j * m / count * stride + k] / count;
}

/* Points of the hyperboloid. */
INLINE void pack_lifted(int dim, Tile *tile, const float *y, int64_t stride) {
    for (int j = 0; j < tile->padded; j++) {
        lift(dim, y + (j < tile->count ? j : 0) * stride, tile->lifted + j, tile->size);
        if (j == 0 || tile->lifted[j] > tile->farthest) tile->farthest = tile->lifted[j];
    }
}

/* Points of few dimensions, in loops that compilers vectorise; `dim` is a constant. */
INLINE void pack_few(int dim, int sphere, Tile *tile, const float *y, int64_t stride) {
    double norm[TILE];
    for (int k = 0; k < dim; k++) {
        float *column = tile->columns + k * tile->size;
        for (int j = 0; j < tile->count; j++) column[j] = y[j * stride + k];
        for (int j = tile->count; j < tile->padded; j++) column[j] = y[k];
    }
    if (!sphere) return;
    for (int j = 0; j < tile->padded; j++) {
        double square = 0;
        for (int k = 0; k < dim; k++) {
            double at = tile->columns[k * tile->size + j];
            square += at * at;
        }
        norm[j] = sqrt(square);
    }
    for (int j = 0; j < tile->padded; j++) {
        tile->excess[j] = (float)(norm[j] - 1);
        tile->inverse[j] = (float)(1 / norm[j]);
    }
}

/* Points of many dimensions, and less their centre. */
INLINE void pack_many(int dim, int sphere, Tile *tile, const float *y, int64_t stride, const float *centre) {
    int width = width_of(dim);
    for (int j = 0; j < tile->padded; j++) {
        const float *point = y + (j < tile->count ? j : 0) * stride;
        float *row = tile->rows + (int64_t)j * width;
        for (int k = 0; k < dim; k++) tile->columns[k * tile->size + j] = row[k] = point[k] - centre[k];
        memcpy(tile->points + (int64_t)j * width, point, dim * sizeof *point);
        tile->square[j] = square_of(width, row);
        if (sphere) {
            double norm = norm_of(dim, point);
            tile->excess[j] = (float)(norm - 1);
            tile->inverse[j] = (float)(1 / norm);
        }
    }
}

/* `count` references, `stride` numbers apart, from the one with index `first` on. Padding is the first of them,
   without weight. */
INLINE void pack(const Request *q, Tile *tile, const float *y, int64_t stride, const float *centre, int64_t first,
                 int count) {
    int dim = q->dim, sphere = q->geometry == SPHERE;
    tile->first = first;
    tile->count = count;
    tile->padded = width_of(count);
    y += first * stride;
    if (q->geometry == HYPERBOLOID) pack_lifted(dim, tile, y, stride);
    else if (dim > SMALL) pack_many(dim, sphere, tile, y, stride, centre);
    else if (dim == 1) pack_few(1, sphere, tile, y, stride);
    else if (dim == 2) pack_few(2, sphere, tile, y, stride);
    else if (dim == 3) pack_few(3, sphere, tile, y, stride);
    else pack_few(4, sphere, tile, y, stride);
}

/* A query whose references have this centre; in memory of its own, where the centre may already be. */
INLINE void place(const Request *q, const float *x, const float *centre, Query *query) {
    int dim = q->dim, width = width_of(dim);
    memcpy(query->point, x, dim * sizeof *x);
    for (int k = 0; k < width; k++) {
        query->point[width + k] = centre[k];
        query->point[2 * width + k] = query->point[k] - centre[k];
    }
    query->square = square_of(width, query->point + 2 * width);
    if (q->geometry == SPHERE) {
        double norm = norm_of(dim, x);
        query->excess = (float)(norm - 1);
        query->inverse = (float)(1 / norm);
    }
}

#endif
