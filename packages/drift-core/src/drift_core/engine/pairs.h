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
#define TILE 512 /* most references in a tile */
#define SMALL 4  /* dimensions up to it have loops of their own */
#define GROUP 4  /* queries that are multiplied by a tile of many dimensions at once */
#define OCTAVES 1.44269504f /* a nat, in powers of 2 */
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
enum { LAPLACE, GAUSSIAN, HALF_INTEGER, TABLE, FOLDED_TABLE, TABLE_OF_SQUARES };

/* log k and its slope. Tables are of the distance r, or of v: r^2 / 2, 1 - cos(r) or cosh(r) - 1. Its derivative in
   r is the length of a direction, so that slopes in v are slopes in r over lengths. The cell of a number is its
   bits >> shift, from `first` on. On a sphere half of the cells are for what is nearer to the other pole, from
   there. */
typedef struct {
    int32_t form, factors; /* factors: nu - 1/2 of a half-integer Matern kernel */
    float rate;            /* 1/l, 1/l^2 or sqrt(2 nu)/l */
    int32_t first, cells, shift;
    const float *pieces; /* [cells, 4]: log k where a cell begins, and its slope in powers of the position in it */
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
    double *sums; /* [kernels, 3 + width]: the largest logit, weights, squared weights, directions */
} Query;

typedef struct {
    float square[TILE], side[TILE]; /* |y - side x|^2 or, but in flat space, v; side: -0 for -1, 0 for 1 */
    float r[TILE], inverse[TILE];   /* distance, 1 / length of the direction */
    float logit[TILE], slope[TILE], weight[TILE];
    int32_t near[TILE]; /* references so near to a query that products cancel, and how many */
    int count;
} Scratch;

/* The weight of a logit is 2^(octaves (logit - base)). */
typedef struct {
    float octaves, base;
} Scale;

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

/* The same of all numbers, and kept in a register. */
INLINE Vector spread(float v) {
    Vector all = (Vector){0} + v;
#ifdef __SSE2__
    __asm__("" : "+v"(all));
#endif
    return all;
}

/* v, or -v where a side is -0; other ports of a processor do it than multiply. */
INLINE Vector signed_by(Vector side, Vector v) { return (Vector)((Ints)v ^ (Ints)side); }

/* -0 where a number is negative, and 0. */
INLINE Vector side_of(Vector v) {
    Ints side = (Ints)v & INT32_MIN;
#ifdef __SSE2__
    __asm__("" : "+v"(side)); /* GCC would join it to what follows, in an instruction for few ports */
#endif
    return (Vector)side;
}


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

/* y, or 0 where v >= 0 is 0 or too small for a float32. A comparison would take a port that multiplies. */
INLINE Vector unless_small(Vector v, Vector y) {
    Ints least = (Ints)((Vector){0} + 1e-36f);
    return (Vector)((Ints)y & ((least - (Ints)v) >> 31));
}

/* 1 / sqrt(v) to 2e-7, and 0 where v is 0 or too small for a float32. */
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
    return unless_small(v, y);
}

/* 1 / sqrt(a b), without the product; 0 where a is 0 or too small for a float32. */
INLINE Vector inverse_root_of_product(Vector a, Vector b) {
#ifdef __AVX512F__
    Vector y = (Vector)_mm512_rsqrt14_ps((__m512)a) * (Vector)_mm512_rsqrt14_ps((__m512)b);
    y += half_of(y) * (1.0f - (a * y) * (b * y));
    return unless_small(a, y);
#else
    return inverse_root(a) * inverse_root(b);
#endif
}

/* 2^t for t <= 0, its error below 2e-7; 0 below -126, NaN for NaN. */
INLINE Vector exp2_of(Vector t) {
#ifdef __AVX512F__
    t = larger((Vector){0} - 160.0f, t);
#endif
    Vector shifted = t + 12582912.0f; /* rounds to the nearest integer */
    Vector whole = shifted - 12582912.0f, f = t - whole;
    Vector high = f * 1.326472712e-3f + 9.671512645e-3f, middle = f * 5.550733743e-2f + 2.402224209e-1f;
    Vector square = f * f, p = (high * square + middle) * square + (f * 6.931469776e-1f + 1.0f);
#ifdef __AVX512F__
    return (Vector)_mm512_scalef_ps((__m512)p, (__m512)whole); /* threads flush what is too small to 0 */
#else
    return (Vector)(((Ints)p + ((Ints)shifted << 23)) & ~(t < -126.0f));
#endif
}

/* exp(t), likewise. */
INLINE Vector exp_of(Vector t) { return exp2_of(t * OCTAVES); }

/* log(1 + t) for finite t >= 0, to 1e-7 relative; NaN for NaN. */
INLINE Vector log1p_of(Vector t) {
    Vector u = t + 1.0f;
    Ints exponent = ((Ints)u - 0x3f3504f3) >> 23; /* u = 2^exponent v with v in [sqrt 1/2, sqrt 2) */
    Vector v = (Vector)((Ints)u - (exponent << 23)) - 1.0f;
    Vector f = choose((exponent == 0) | (t != t), t, v);
    Vector square = f * f, p = f * -7.830716258e-2f + 1.301909958e-1f;
    p = p * square + (f * -1.321227883e-1f + 1.416073102e-1f);
    p = p * square + (f * -1.661034128e-1f + 2.000320609e-1f);
    p = p * square + (f * -2.500157098e-1f + 3.333330241e-1f);
    p = p * square + (f * -4.999998832e-1f + 1.0f);
    return p * f + __builtin_convertvector(exponent, Vector) * 0.693147181f;
}

/* Coordinates with padding. */
INLINE int width_of(int dim) { return (dim + WIDTH - 1) / WIDTH * WIDTH; }

/* ------------------------------------------------------------------ distances */

/* Hand over pairs: logits and slopes of a Laplace or Gaussian kernel, over a unit, else distances. */
INLINE void emit(int form, float unit, int j, Vector r, Vector inverse, Scratch *restrict s) {
    if (form == LAPLACE) {
        store(s->logit + j, r * -unit);
        store(s->slope + j, inverse * unit);
    } else if (form == GAUSSIAN) {
        store(s->logit + j, r * r * (-0.5f * unit));
        store(s->slope + j, r * inverse * unit);
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
        for (int v = 0; v < count; v++) store(s[c].square + j + v * WIDTH, sums[c][v]);
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

/* Squares |y - side x|^2 in s->square, of products there: of x and y less the centre, |x|^2 + |y|^2 - 2 x . y. On the
   sphere |y + x|^2 is what is missing to 2 |x|^2 + 2 |y|^2. Where most of a sum cancels, of differences. */
INLINE void find_squares(int sided, int width, const Tile *tile, const Query *query, Scratch *restrict s) {
    Ints any = {0};
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector whole = load(tile->square + j) + query->square, square = whole - 2 * load(s->square + j);
        if (sided) {
            Vector norm = load(tile->excess + j) + 1.0f;
            Vector sum = 2 * (norm * norm + (1 + query->excess) * (1 + query->excess));
            Ints far = square * 2 > sum;
            square = choose(far, sum - square, square);
            whole = choose(far, sum, whole);
            store(s->side + j, (Vector)(far & INT32_MIN));
        }
        Ints near = ~(square * NEAR > whole);
        any |= near;
        store(s->square + j, (Vector)((Ints)square | near)); /* NaN */
    }
    s->count = 0;
    if (!is_any(any)) return;
    for (int j = 0; j < tile->padded; j++) {
        s->near[s->count] = j;
        s->count += s->square[j] != s->square[j];
    }
    for (int i = 0; i < s->count; i++) {
        int j = s->near[i];
        float side = sided ? copysignf(1, s->side[j]) : 1;
        s->square[j] = square_between(width, tile->points + (int64_t)j * width, side, query->point);
    }
}

/* Squares in s->square, and sides, of a group of queries. */
INLINE void find_all_squares(int queries, int sided, int dim, const Tile *tile, const Query *query,
                             Scratch *restrict s) {
    if (queries == GROUP) multiply_all(GROUP, dim, tile, query, s);
    else for (int c = 0; c < queries; c++) multiply_all(1, dim, tile, query + c, s + c);
    for (int c = 0; c < queries; c++) find_squares(sided, width_of(dim), tile, query + c, s + c);
}

/* v = |y - side x|^2 / 2 of the unit vectors along x and y, from the squares of themselves. These are not exactly of
   length one: a radial difference is removed, and 1 / |x| |y| = 1 + (1 / |x| - 1) + (1 / |y| - 1) nearly. */
INLINE Vector unit_square(const Tile *tile, const Query *query, int j, Vector square) {
    Vector radial = load(tile->excess + j) - query->excess;
    Vector scale = load(tile->inverse + j) * 0.5f + (query->inverse - 1.0f) * 0.5f;
    return larger((Vector){0}, (square - radial * radial) * scale);
}

/* The same of one query in few dimensions; on the sphere of unit vectors, halved. `dim` is a constant. */
INLINE void find_small_squares(int sided, int dim, const Tile *tile, const Query *query, Scratch *restrict s) {
    Vector x[SMALL], y[SMALL];
    for (int k = 0; k < dim; k++) x[k] = spread(query->point[k]);
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector dot = {0}, square = {0};
        for (int k = 0; k < dim; k++) {
            y[k] = load_once(tile->columns + k * tile->size + j);
            if (sided) dot += y[k] * x[k];
        }
        Vector side = side_of(dot);
        for (int k = 0; k < dim; k++) {
            Vector d = y[k] - (sided ? signed_by(side, x[k]) : x[k]);
            square += d * d;
        }
        store(s->square + j, sided ? unit_square(tile, query, j, square) : square);
        if (sided) store(s->side + j, side);
    }
}

/* Of a Gaussian kernel in flat space, over a unit, without distances: its slope is proportional to them. */
INLINE void gaussian_of_squares(int count, Scratch *restrict s) {
    for (int j = 0; j < count; j += WIDTH) {
        Vector square = load_once(s->square + j);
        store(s->logit + j, square * -0.5f);
        store(s->slope + j, square * 0 + 1.0f);
    }
}

INLINE void euclidean_pairs(int form, int count, Scratch *restrict s) {
    if (form == GAUSSIAN) gaussian_of_squares(count, s);
    else
        for (int j = 0; j < count; j += WIDTH) {
            Vector square = load_once(s->square + j), inverse = inverse_root(square);
            emit(form, 1, j, square * inverse, inverse, s);
        }
}

/* With v = 1 - cos(theta) for the angle theta to y, or to -y beyond a right angle, sin(theta)^2 = 2 v - v^2, and
   theta is sin(theta) p(v): theta / sin(theta) is analytic in v (a fit on [0, 1], error 1e-7). Of the v in
   s->square, and sides. */
INLINE void sphere_pairs(int form, const Tile *tile, Scratch *restrict s) {
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector v = load_once(s->square + j), side = load_once(s->side + j);
        Vector square = v + v - v * v, inverse = inverse_root(square);
        Vector p = v * 1.814127028e-02f - 4.520956644e-02f;
        p = p * v + 6.492482586e-02f;
        p = p * v - 2.880293021e-02f;
        p = p * v + 4.087360266e-02f;
        p = p * v + 5.387405562e-02f;
        p = p * v + 1.336752440e-01f;
        p = p * v + 3.333196466e-01f;
        p = p * v + 1.0f;
        Vector angle = signed_by(side, square * inverse * p), pi = (Vector){0} + 3.14159265f;
        angle += (Vector)((Ints)pi & ((Ints)side >> 31));
        emit(form, 1, j, angle, inverse * load(tile->inverse + j), s);
    }
}

/* cosh(r) - 1 = -<x, y>_L - 1 as float32 in s->square. x is lifted, time first. Returns whether one of them
   is so small that the product has cancelled. */
INLINE int lorentz_products(int dim, const Tile *tile, const double *x, Scratch *restrict s) {
    Vector limit = (Vector){0} + (float)(1e-8 * tile->farthest * x[0]);
    Ints any = {0};
    for (int j = 0; j < tile->padded; j += WIDTH / 2) {
        Doubles z = load_doubles(tile->lifted + j) * x[0] - 1.0;
        for (int k = 1; k < dim; k++) z -= load_doubles(tile->lifted + k * tile->size + j) * x[k];
        Half narrow = __builtin_convertvector(z, Half);
        memcpy(s->square + j, &narrow, sizeof narrow);
    }
    for (int j = 0; j < tile->padded; j += WIDTH) any |= load(s->square + j) < limit;
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
        memcpy(s->square + j, &narrow, sizeof narrow);
    }
}

/* The more exact of both. */
INLINE void hyperboloid_squares(int dim, const Tile *tile, const double *x, Scratch *restrict s) {
    if (lorentz_products(dim, tile, x, s)) lorentz_squares(dim, tile, x, s);
    for (int j = 0; j < tile->padded; j += WIDTH) store(s->square + j, larger((Vector){0}, load(s->square + j)));
}

/* With z = cosh(r) - 1 in s->square, sinh(r) = sqrt(z (z + 2)), and r = log(cosh(r) + sinh(r)). Two loops, since a
   processor looks ahead no further than a few vectors of the two in one. */
INLINE void hyperboloid_pairs(int form, int count, Scratch *restrict s) {
    for (int j = 0; j < count; j += WIDTH) {
        Vector z = load_once(s->square + j), inverse = inverse_root_of_product(z, z + 2.0f);
        store(s->r + j, z * ((z + 2.0f) * inverse) + z);
        store(s->inverse + j, inverse);
    }
    for (int j = 0; j < count; j += WIDTH) emit(form, 1, j, log1p_of(load(s->r + j)), load(s->inverse + j), s);
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

/* Of distances, or of squares over a unit, where their pieces begin in a table, positions in cells, from 0 to 1, or
   NaN, and widths of cells, negative from the other pole. `form` and `sided` are constants. */
INLINE void find_cells(int form, int sided, const Kernel *kernel, float unit, int count, const Scratch *s,
                       int32_t *pieces, float *positions, float *widths) {
    Ints bits = {0}, far = {0};
    int shift = kernel->shift, first = kernel->first, cells = sided ? kernel->cells / 2 : kernel->cells;
    Vector least = (Vector)(bits + (first << shift)), most = (Vector)(bits + ((first + cells) << shift) - 1);
    for (int j = 0; j < count; j += WIDTH) {
        Vector at = load_once((form == TABLE_OF_SQUARES ? s->square : s->r) + j);
        if (form == FOLDED_TABLE) {
            far = (Ints)(1.57079633f - at) >> 31;
            at = smaller(at, 3.14159265f - at);
        } else if (form == TABLE_OF_SQUARES) {
            if (sided) far = (Ints)load(s->side + j) >> 31;
            else at *= unit;
        }
        bits = (Ints)smaller(larger(at, least), most); /* high bits name the octave, the next ones the cell in it */
        Ints cell = (bits >> shift) - first, width = (bits & 0x7f800000) - ((23 - shift) << 23);
        bits = ((bits << (23 - shift)) & 0x007fffff) | 0x3f800000; /* the position in the cell, plus 1 */
        cell = (cell + (far & cells)) << 2;
        memcpy(pieces + j, &cell, sizeof cell);
        store(positions + j, (Vector)((Ints)((Vector)bits - 1.0f) | (at != at)));
        store(widths + j, (Vector)(width | (far & INT32_MIN)));
    }
}

#ifdef __SSE2__
/* Four numbers of each of the pieces 0, 4, ..., in lanes of four. */
INLINE Register load_lanes(const float *numbers, const int32_t *pieces) {
    __m128 lane[WIDTH / 4];
    for (int i = 0; i < WIDTH / 4; i++) lane[i] = _mm_loadu_ps(numbers + pieces[4 * i]);
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

/* columns[k]: the k-th number of a vector of pieces. Lanes of four rows are transposed. */
INLINE void load_columns(const float *numbers, const int32_t *pieces, Vector *columns) {
    Register rows[4], low[2], high[2];
    for (int i = 0; i < 4; i++) rows[i] = load_lanes(numbers, pieces + i);
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
INLINE void load_columns(const float *numbers, const int32_t *pieces, Vector *columns) {
    for (int i = 0; i < WIDTH; i++)
        for (int k = 0; k < 4; k++) columns[k][i] = numbers[pieces[i] + k];
}
#endif

/* log k, and its slope times -1, over the lengths of directions: times the numbers in `inverse`, unless that is
   NULL. */
INLINE void tabulated(int form, int sided, const Kernel *kernel, float unit, const float *inverse, int count,
                      Scratch *restrict s) {
    int32_t pieces[TILE];
    float positions[TILE], widths[TILE];
    find_cells(form, sided, kernel, unit, count, s, pieces, positions, widths);
    for (int j = 0; j < count; j += WIDTH) {
        Vector c[4], t = load(positions + j);
        load_columns(kernel->pieces, pieces + j, c);
        Vector linear = c[2] * t, square = c[3] * t * t, slope = -(c[1] + linear + square);
        Vector mean = c[1] + linear * 0.5f + square * 0.333333333f; /* of the slope, from where the cell begins */
        store(s->logit + j, t * load(widths + j) * mean + c[0]);
        store(s->slope + j, inverse ? slope * load(inverse + j) : slope);
    }
}

/* The same of the squares in s->square, and sides. */
INLINE void tabulated_squares(const Request *q, const Kernel *kernel, const Tile *tile, Scratch *restrict s) {
    if (q->geometry == SPHERE) tabulated(TABLE_OF_SQUARES, 1, kernel, 1, tile->inverse, tile->padded, s);
    else tabulated(TABLE_OF_SQUARES, 0, kernel, q->geometry == EUCLIDEAN ? 0.5f : 1, NULL, tile->padded, s);
}

/* logit = log k, slope = -d log k / dr (or r, for displacements) over the length of the direction; of Laplace and
   Gaussian kernels `unit` times those of rate 1. */
INLINE void evaluate(const Kernel *kernel, float unit, int displacement, int count, Scratch *restrict s) {
    if (kernel->form == HALF_INTEGER) half_integer(kernel, count, s);
    else if (kernel->form == TABLE) tabulated(TABLE, 0, kernel, 1, s->inverse, count, s);
    else if (kernel->form == FOLDED_TABLE) tabulated(FOLDED_TABLE, 1, kernel, 1, s->inverse, count, s);
    else
        for (int j = 0; j < count; j += WIDTH) {
            Vector r = load(s->r + j), inverse = load(s->inverse + j);
            if (kernel->form == LAPLACE) emit(LAPLACE, unit, j, r, inverse, s);
            else emit(GAUSSIAN, unit, j, r, inverse, s);
        }
    for (int j = 0; displacement && j < count; j += WIDTH)
        store(s->slope + j, load(s->r + j) * load(s->inverse + j));
}

/* ------------------------------------------------------------------ sums */

/* Weights, and their products with the slopes in s->weight. */
INLINE void add_weights(int count, Scratch *restrict s, Scale scale, double *sums) {
    Vector total = {0}, squares = {0};
    for (int j = 0; j < count; j += WIDTH) {
        Vector w = exp2_of((load(s->logit + j) - scale.base) * scale.octaves);
        total += w;
        squares += w * w;
        store(s->weight + j, w * load(s->slope + j));
    }
    sums[1] += sum_of(total);
    sums[2] += sum_of(squares);
}

/* Weights, and sums of a (y - side x); `dim`, at most `SMALL`, and `sided` are constants; without `sided` every side
   is 1. */
INLINE void add_small(int sided, int dim, const Tile *tile, const float *point, Scratch *restrict s, Scale scale,
                      double *sums) {
    Vector total = {0}, squares = {0}, parts[SMALL] = {{0}}, x[SMALL];
    for (int k = 0; k < dim; k++) x[k] = spread(point[k]);
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector w = exp2_of((load(s->logit + j) - scale.base) * scale.octaves), a = w * load(s->slope + j);
        Vector side = sided ? load_once(s->side + j) : w;
        total += w;
        squares += w * w;
        for (int k = 0; k < dim; k++) {
            Vector d = load(tile->columns + k * tile->size + j) - (sided ? signed_by(side, x[k]) : x[k]);
            parts[k] += a * d;
        }
    }
    sums[1] += sum_of(total);
    sums[2] += sum_of(squares);
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
        float side = sided ? copysignf(1, s->side[j]) : 1;
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

/* What the logits and slopes of a kernel are to be multiplied by. */
INLINE float unit_of(const Kernel *kernel) { return kernel->form <= GAUSSIAN ? kernel->rate : 1; }

/* The form of the only kernel, if it is evaluated with the distances, or of tables that need none; else -1. */
INLINE int form_of(const Request *q) {
    int form = q->kernel->form, squares = 1;
    for (int k = 0; k < q->kernels; k++) squares &= q->kernel[k].form == TABLE_OF_SQUARES;
    return squares || (q->kernels == 1 && !q->displacement && form <= GAUSSIAN) ? form : -1;
}

/* Squares, and what follows from them; `form` is a constant, see above. */
INLINE void find_pairs(int form, const Request *q, const Tile *tile, const double *lifted, const Query *query,
                       Scratch *restrict s) {
    int dim = q->dim, distances = form != TABLE_OF_SQUARES;
    if (q->geometry == HYPERBOLOID) {
        if (dim == 3) hyperboloid_squares(3, tile, lifted, s);
        else hyperboloid_squares(dim, tile, lifted, s);
        if (distances) hyperboloid_pairs(form, tile->padded, s);
    } else if (q->geometry == SPHERE) {
        if (dim == 2) find_small_squares(1, 2, tile, query, s);
        else if (dim == 3) find_small_squares(1, 3, tile, query, s);
        else if (dim == 4) find_small_squares(1, 4, tile, query, s);
        else
            for (int j = 0; j < tile->padded; j += WIDTH)
                store(s->square + j, unit_square(tile, query, j, load(s->square + j)));
        if (distances) sphere_pairs(form, tile, s);
    } else {
        if (dim == 1) find_small_squares(0, 1, tile, query, s);
        else if (dim == 2) find_small_squares(0, 2, tile, query, s);
        else if (dim == 3) find_small_squares(0, 3, tile, query, s);
        else if (dim == 4) find_small_squares(0, 4, tile, query, s);
        if (distances) euclidean_pairs(form, tile->padded, s);
    }
}

/* Logits and slopes of a kernel, over its unit, of the pairs. */
INLINE void evaluate_pairs(const Request *q, const Kernel *kernel, const Tile *tile, Scratch *restrict s) {
    int squares = q->geometry == EUCLIDEAN && !q->displacement;
    if (kernel->form == TABLE_OF_SQUARES) tabulated_squares(q, kernel, tile, s);
    else if (kernel->form == GAUSSIAN && squares) gaussian_of_squares(tile->padded, s);
    else evaluate(kernel, 1, q->displacement, tile->padded, s);
}

/* Raise the largest logit of a query, to which its sums are relative. */
INLINE void raise(int width, float largest, float octaves, double *sums) {
    if (!(largest > sums[0])) return;
    double factor = exp2((sums[0] - largest) * octaves);
    sums[0] = largest;
    sums[1] *= factor;
    sums[2] *= factor * factor;
    for (int k = 0; k < width; k++) sums[3 + k] *= factor;
}

/* Add the log-weights to the logits, which are over a unit, exclude what is not there, and raise the largest logit of
   the query, to which its sums are relative (NaN does not count). Returns how weights follow from logits. */
INLINE Scale weigh(const Request *q, float unit, const Tile *tile, int64_t i, Scratch *restrict s, int width,
                   double *sums) {
    if (q->log_weight) {
        const float *w = q->log_weight + i * q->row_stride + tile->first * q->column_stride;
        for (int j = 0; j < tile->count; j++) s->logit[j] = s->logit[j] * unit + w[j * q->column_stride];
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
    Scale scale = {.octaves = (q->log_weight ? 1 : unit) * OCTAVES};
    float largest = -INFINITY;
    for (int k = 0; k < WIDTH; k++) largest = most[k] > largest ? most[k] : largest;
    raise(width, largest, scale.octaves, sums);
    scale.base = sums[0] == -INFINITY ? 0 : (float)sums[0];
    return scale;
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
