/* Kernel-smoothed log-densities and their gradients over all pairs of two float32 clouds, in one pass.

   References are packed into tiles that fit the first-level cache, one row per coordinate. For a tile and one
   query three loops, each vectorised by the compiler, find distances and directions, kernel values, and
   the sums of an online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867). Sums over a tile are
   float32, sums of tiles float64. Directions are sums of differences y - x, never of y alone, so that
   near-coincident points keep their digits; on the sphere y + x takes their place beyond a right angle.
   Hyperboloids are float64 up to the distance: their coordinates grow like exp(radius).

   The result of a query depends neither on the other queries nor on the number of threads. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILE 256 /* most references in a tile */
#define WIDTH 16 /* references and coordinates are padded to a multiple of it */
#define SMALL 4  /* dimensions up to it have loops of their own */
#define INLINE static inline __attribute__((always_inline))

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
    double *lifted;             /* [dim, size]: points of the hyperboloid */
    float excess[TILE], inverse[TILE]; /* |y| - 1 and 1 / |y| on the sphere */
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

INLINE float from_bits(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE int32_t to_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* exp(t) for t <= 0, to 1e-7; 0 below -87, NaN for NaN. */
INLINE float exp_of(float t) {
    float safe = t < -87.0f ? -87.0f : t;
    float shifted = safe * 1.44269504f + 12582912.0f; /* rounds to the nearest integer */
    float whole = shifted - 12582912.0f;
    float f = (safe - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.395605435e-3f;
    p = p * f + 8.375130130e-3f;
    p = p * f + 4.166608362e-2f;
    p = p * f + 1.666641546e-1f;
    p = p * f + 5.000000168e-1f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    float scale = from_bits((to_bits(shifted) + 127 - 0x4b400000) << 23);
    return t < -87.0f ? 0.0f : p * scale;
}

/* log(1 + t) for finite t >= 0, to 1e-7 relative. */
INLINE float log1p_of(float t) {
    float u = 1.0f + t;
    int32_t exponent = (to_bits(u) - 0x3f3504f3) >> 23; /* u = 2^exponent v with v in [sqrt 1/2, sqrt 2) */
    float v = from_bits(to_bits(u) - (exponent << 23)) - 1.0f;
    float f = exponent == 0 ? t : v;
    float p = -7.830716258e-2f;
    p = p * f + 1.301909958e-1f;
    p = p * f - 1.321227883e-1f;
    p = p * f + 1.416073102e-1f;
    p = p * f - 1.661034128e-1f;
    p = p * f + 2.000320609e-1f;
    p = p * f - 2.500157098e-1f;
    p = p * f + 3.333330241e-1f;
    p = p * f - 4.999998832e-1f;
    p = p * f + 1.0f;
    return p * f + (float)exponent * 0.693147181f;
}

/* Coordinates with padding. */
INLINE int width_of(int dim) { return (dim + WIDTH - 1) / WIDTH * WIDTH; }

/* ------------------------------------------------------------------ distances */

typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float))));

INLINE Vector load(const float *p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, Vector v) { memcpy(p, &v, sizeof v); }

/* `count` vectors from j on of x . y, or of |y - side x|^2, in any dimension. */
INLINE void vectors(int product, int sided, int count, int dim, const Tile *tile, const float *x, Scratch *s,
                    int j) {
    const float *y = tile->columns + j;
    Vector sums[4] = {{0}}, side[4], d;
    for (int v = 0; v < count; v++) side[v] = load(s->side + j + v * WIDTH);
    for (int k = 0; k < dim; k++, y += tile->size)
        for (int v = 0; v < count; v++) {
            d = load(y + v * WIDTH);
            if (product) sums[v] += d * x[k];
            else {
                if (sided) d -= side[v] * x[k];
                else d -= x[k];
                sums[v] += d * d;
            }
        }
    for (int v = 0; v < count; v++) store(s->r + j + v * WIDTH, sums[v]);
}

INLINE void all_vectors(int product, int sided, int dim, const Tile *tile, const float *x, Scratch *s) {
    int j = 0;
    for (; j + 4 * WIDTH <= tile->padded; j += 4 * WIDTH) vectors(product, sided, 4, dim, tile, x, s, j);
    for (; j < tile->padded; j += WIDTH) vectors(product, sided, 1, dim, tile, x, s, j);
}

static void dots(int dim, const Tile *tile, const float *x, Scratch *s) { all_vectors(1, 0, dim, tile, x, s); }

static void squares(int sided, int dim, const Tile *tile, const float *x, Scratch *s) {
    if (sided) all_vectors(0, 1, dim, tile, x, s);
    else all_vectors(0, 0, dim, tile, x, s);
}

/* `dim` is a constant up to `SMALL`, and 0 if s->r holds the squares. */
INLINE void euclidean_pairs(int dim, const Tile *tile, const float *x, Scratch *s) {
    for (int j = 0; j < tile->padded; j++) {
        float square = dim ? 0 : s->r[j];
        for (int k = 0; k < dim; k++) {
            float d = tile->columns[k * tile->size + j] - x[k];
            square += d * d;
        }
        float r = sqrtf(square);
        s->r[j] = r;
        s->inverse[j] = r > 0 ? 1 / r : 0;
        s->side[j] = 1;
    }
}

/* With e the chord to y, or to -y beyond a right angle, sin(theta) = e sqrt(1 - e^2/4), and theta, or pi less
   it, is sin(theta) p(e^2): theta / sin(theta) is analytic in e^2 (a fit on [0, 2], error 2e-8). Vectors are not exactly of length one: a radial difference is removed.
   `dim` is a constant up to `SMALL`, and 0 if s->r holds the squares and s->side the sides. */
INLINE void sphere_pairs(int dim, const Tile *tile, const float *x, const Query *q, Scratch *s) {
    for (int j = 0; j < tile->padded; j++) {
        float dot = 0, square = 0;
        for (int k = 0; k < dim; k++) dot += x[k] * tile->columns[k * tile->size + j];
        float side = dim == 0 ? s->side[j] : dot < 0 ? -1.0f : 1.0f;
        if (dim == 0) square = s->r[j];
        for (int k = 0; k < dim; k++) {
            float d = tile->columns[k * tile->size + j] - side * x[k];
            square += d * d;
        }
        float radial = tile->excess[j] - q->excess;
        square = (square - radial * radial) * (q->inverse * tile->inverse[j]);
        square = square < 0 ? 0 : square;
        float sine = sqrtf(square - 0.25f * square * square);
        float p = 2.302840839e-5f;
        p = p * square - 1.382919113e-4f;
        p = p * square + 4.392040122e-4f;
        p = p * square - 6.065905230e-4f;
        p = p * square + 1.035720742e-3f;
        p = p * square + 1.194009070e-3f;
        p = p * square + 7.272748347e-3f;
        p = p * square + 3.331172113e-2f;
        p = p * square + 1.666680555e-1f;
        p = p * square + 1.0f;
        float angle = sine * p;
        s->r[j] = side < 0 ? 3.14159265f - angle : angle;
        s->inverse[j] = sine > 0 ? tile->inverse[j] / sine : 0;
        s->side[j] = side;
    }
}

/* z = sinh^2(r/2) = <y - x, y - x>_L / 4, sinh(r) = 2 sqrt(z + z^2), r = log(cosh(r) + sinh(r)). x is lifted, time first. */
INLINE void hyperboloid_pairs(int dim, const Tile *tile, const double *x, Scratch *s) {
    for (int j = 0; j < tile->padded; j++) {
        double time = tile->lifted[j] - x[0], square = -time * time;
        for (int k = 1; k < dim; k++) {
            double d = tile->lifted[k * tile->size + j] - x[k];
            square += d * d;
        }
        float z = (float)(square * 0.25);
        z = z < 0 ? 0 : z;
        float sinh = 2 * sqrtf(z + z * z);
        s->r[j] = z >= 0 ? log1p_of(2 * z + sinh) : z; /* NaN */
        s->inverse[j] = sinh > 0 ? 1 / sinh : 0;
        s->side[j] = 1;
    }
}

/* ------------------------------------------------------------------ kernels */

/* (1/a) d/da of log k in closed form for nu = factors + 1/2, as `HalfInteger` in kernel/matern.py. */
static void half_integer(const Kernel *kernel, int count, Scratch *s) {
    float *a = s->weight; /* free until the sums */
    for (int j = 0; j < count; j++) {
        a[j] = s->r[j] * kernel->rate;
        s->slope[j] = 1 + a[j];
        s->logit[j] = log1p_of(a[j]) - a[j];
    }
    for (int factor = 1; factor < kernel->factors; factor++) {
        float order = factor + 0.5f, inverse = 0.5f / order;
        for (int j = 0; j < count; j++) {
            float excess = a[j] * (a[j] / s->slope[j]);
            s->logit[j] += log1p_of(excess * inverse);
            s->slope[j] = excess + 2 * order;
        }
    }
    for (int j = 0; j < count; j++) s->slope[j] = a[j] / s->slope[j] * kernel->rate;
}

static void tabulated(const Kernel *kernel, int count, Scratch *s) {
    int32_t cell[TILE];
    float cubics[TILE][8], *offset = s->weight;
    if (kernel->form == TABLE_UNIFORM)
        for (int j = 0; j < count; j++) {
            float u = s->r[j] * kernel->rate;
            int32_t i = (int32_t)u;
            i = i > kernel->last ? kernel->last : i;
            cell[j] = i < 0 ? 0 : i; /* NaN converts to a negative number */
            offset[j] = u - (float)i;
        }
    else
        for (int j = 0; j < count; j++) { /* high bits of r name the cell, low bits the position in it */
            int32_t bits = to_bits(s->r[j]), i = bits >> kernel->shift, low = bits & ((1 << kernel->shift) - 1);
            float position = from_bits(0x3f800000 | low << (23 - kernel->shift)) - 1;
            position = i < kernel->first ? 0 : s->r[j] == s->r[j] ? position : s->r[j];
            i = i < kernel->first ? kernel->first : i;
            cell[j] = (i > kernel->last ? kernel->last : i) - kernel->first;
            offset[j] = position;
        }
    for (int j = 0; j < count; j++) memcpy(cubics[j], kernel->cubics + 8 * cell[j], sizeof cubics[j]);
    for (int j = 0; j < count; j++) {
        const float *c = cubics[j], t = offset[j];
        s->logit[j] = ((c[3] * t + c[2]) * t + c[1]) * t + c[0];
        s->slope[j] = -(((c[7] * t + c[6]) * t + c[5]) * t + c[4]);
    }
}

/* logit = log k, slope = -d log k / dr (or r, for displacements) over the length of the direction. */
static void evaluate(const Kernel *kernel, int displacement, int count, Scratch *s) {
    float rate = kernel->rate;
    if (kernel->form == LAPLACE)
        for (int j = 0; j < count; j++) {
            s->logit[j] = s->r[j] * -rate;
            s->slope[j] = rate * s->inverse[j];
        }
    else if (kernel->form == GAUSSIAN)
        for (int j = 0; j < count; j++) {
            s->logit[j] = s->r[j] * s->r[j] * (-0.5f * rate);
            s->slope[j] = s->r[j] * rate * s->inverse[j];
        }
    else {
        if (kernel->form == HALF_INTEGER) half_integer(kernel, count, s);
        else tabulated(kernel, count, s);
        for (int j = 0; j < count; j++) s->slope[j] *= s->inverse[j];
    }
    if (displacement)
        for (int j = 0; j < count; j++) s->slope[j] = s->r[j] * s->inverse[j];
}

/* ------------------------------------------------------------------ sums */

INLINE void add_small(int dim, const Tile *tile, const float *x, Scratch *s, float largest, double *sums) {
    float total = 0, squares = 0, a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    const float *y = tile->columns;
    int size = tile->size;
#pragma omp simd reduction(+ : total, squares, a0, a1, a2, a3)
    for (int j = 0; j < tile->padded; j++) {
        float w = exp_of(s->logit[j] - largest);
        total += w;
        squares += w * w;
        float a = w * s->slope[j], side = s->side[j];
        if (dim > 0) a0 += a * (y[j] - side * x[0]);
        if (dim > 1) a1 += a * (y[size + j] - side * x[1]);
        if (dim > 2) a2 += a * (y[2 * size + j] - side * x[2]);
        if (dim > 3) a3 += a * (y[3 * size + j] - side * x[3]);
    }
    sums[1] += total;
    sums[2] += squares;
    float parts[SMALL] = {a0, a1, a2, a3};
    for (int k = 0; k < dim; k++) sums[3 + k] += parts[k];
}

/* Weights, and their products with the slopes in s->weight. */
static void add_weights(int count, Scratch *s, float largest, double *sums) {
    float total = 0, squares = 0;
#pragma omp simd reduction(+ : total, squares)
    for (int j = 0; j < count; j++) {
        float w = exp_of(s->logit[j] - largest);
        total += w;
        squares += w * w;
        s->weight[j] = w * s->slope[j];
    }
    sums[1] += total;
    sums[2] += squares;
}

/* Sums of a (y - side x) over a tile for `count` vectors of coordinates; several sums of few, so that
   additions need not wait for one another. */
INLINE void directions(int sided, int count, int width, const Tile *tile, const float *x, const Scratch *s,
                       double *sums) {
    const float *y = tile->rows;
    int lanes = 4 / count;
    Vector total[4] = {{0}}, at[4];
    for (int v = 0; v < count; v++) at[v] = load(x + v * WIDTH);
    for (int j = 0; j < tile->padded; j += lanes)
        for (int i = 0; i < lanes; i++, y += width)
            for (int v = 0; v < count; v++) {
                Vector d = load(y + v * WIDTH) - (sided ? s->side[j + i] * at[v] : at[v]);
                total[i * count + v] += s->weight[j + i] * d;
            }
    for (int i = 1; i < lanes; i++)
        for (int v = 0; v < count; v++) total[v] += total[i * count + v];
    for (int v = 0; v < count; v++)
        for (int k = 0; k < WIDTH; k++) sums[v * WIDTH + k] += total[v][k];
}

INLINE void add_directions(int sided, int width, const Tile *tile, const float *x, const Scratch *s,
                           double *sums) {
    Tile part = *tile;
    int k = 0;
    for (; k + 4 * WIDTH <= width; k += 4 * WIDTH, part.rows += 4 * WIDTH)
        directions(sided, 4, width, &part, x + k, s, sums + k);
    for (; k + 2 * WIDTH <= width; k += 2 * WIDTH, part.rows += 2 * WIDTH)
        directions(sided, 2, width, &part, x + k, s, sums + k);
    if (k < width) directions(sided, 1, width, &part, x + k, s, sums + k);
}

INLINE void add_lifted(int dim, const Tile *tile, const Scratch *s, double *sums) {
    for (int k = 0; k < dim; k++) {
        const double *y = tile->lifted + k * tile->size;
        double total = 0;
#pragma omp simd reduction(+ : total)
        for (int j = 0; j < tile->padded; j++) total += s->weight[j] * y[j];
        sums[3 + k] += total;
    }
}

/* ------------------------------------------------------------------ a query and a tile */

static void find_pairs(const Request *q, const Tile *tile, const float *x, const double *lifted,
                       const Query *query, Scratch *s) {
    int dim = q->dim;
    if (q->geometry == HYPERBOLOID) {
        if (dim == 3) hyperboloid_pairs(3, tile, lifted, s);
        else hyperboloid_pairs(dim, tile, lifted, s);
    } else if (q->geometry == SPHERE) {
        if (dim == 2) sphere_pairs(2, tile, x, query, s);
        else if (dim == 3) sphere_pairs(3, tile, x, query, s);
        else if (dim == 4) sphere_pairs(4, tile, x, query, s);
        else {
            dots(dim, tile, x, s);
            for (int j = 0; j < tile->padded; j++) s->side[j] = s->r[j] < 0 ? -1.0f : 1.0f;
            squares(1, dim, tile, x, s);
            sphere_pairs(0, tile, x, query, s);
        }
    } else {
        if (dim == 1) euclidean_pairs(1, tile, x, s);
        else if (dim == 2) euclidean_pairs(2, tile, x, s);
        else if (dim == 3) euclidean_pairs(3, tile, x, s);
        else if (dim == 4) euclidean_pairs(4, tile, x, s);
        else {
            squares(0, dim, tile, x, s);
            euclidean_pairs(0, tile, x, s);
        }
    }
}

static void add(const Request *q, const Tile *tile, const float *x, Scratch *s, float largest, double *sums) {
    int dim = q->gradient ? q->dim : 0, width = width_of(q->dim);
    if (dim == 0) add_small(0, tile, x, s, largest, sums);
    else if (q->geometry == HYPERBOLOID) {
        add_weights(tile->padded, s, largest, sums);
        if (dim == 3) add_lifted(3, tile, s, sums);
        else add_lifted(dim, tile, s, sums);
    } else if (dim == 1) add_small(1, tile, x, s, largest, sums);
    else if (dim == 2) add_small(2, tile, x, s, largest, sums);
    else if (dim == 3) add_small(3, tile, x, s, largest, sums);
    else if (dim == 4) add_small(4, tile, x, s, largest, sums);
    else {
        add_weights(tile->padded, s, largest, sums);
        if (q->geometry == SPHERE) add_directions(1, width, tile, x, s, sums + 3);
        else add_directions(0, width, tile, x, s, sums + 3);
    }
}

/* Add the log-weights to the logits, and return the largest (ignoring NaN). */
static float weigh(const Request *q, const Tile *tile, int64_t i, Scratch *s) {
    if (q->log_weight) {
        const float *w = q->log_weight + i * q->row_stride + tile->first * q->column_stride;
        for (int j = 0; j < tile->count; j++) s->logit[j] += w[j * q->column_stride];
    }
    if (q->self_index) {
        int64_t own = q->self_index[i] - tile->first;
        if (own >= 0 && own < tile->count) s->logit[own] = -INFINITY;
    }
    for (int j = tile->count; j < tile->padded; j++) s->logit[j] = -INFINITY;
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int j = 0; j < tile->padded; j++) largest = s->logit[j] > largest ? s->logit[j] : largest;
    return largest;
}

static void accumulate(const Request *q, const Tile *tile, int64_t i, const float *x, const double *lifted,
                       Query *query, Scratch *s) {
    find_pairs(q, tile, x, lifted, query, s);
    for (int k = 0; k < q->kernels; k++) {
        double *sums = query->sums + (int64_t)k * (3 + width_of(q->dim));
        evaluate(q->kernel + k, q->displacement, tile->padded, s);
        float largest = weigh(q, tile, i, s);
        if (largest > sums[0]) {
            double factor = exp(sums[0] - largest);
            sums[0] = largest;
            sums[1] *= factor;
            sums[2] *= factor * factor;
            for (int d = 0; d < q->dim; d++) sums[3 + d] *= factor;
        }
        add(q, tile, x, s, sums[0] == -INFINITY ? 0 : (float)sums[0], sums);
    }
}

/* ------------------------------------------------------------------ packing and results */

static double norm_of(int dim, const float *x) {
    double square = 0;
    for (int k = 0; k < dim; k++) square += (double)x[k] * x[k];
    return sqrt(square);
}

/* The time coordinate that the others imply, and those, in float64. */
static void lift(int dim, const float *x, double *lifted, int64_t stride) {
    double square = 1;
    for (int k = 1; k < dim; k++) {
        lifted[k * stride] = x[k];
        square += (double)x[k] * x[k];
    }
    lifted[0] = sqrt(square);
}

static void pack(const Request *q, Tile *tile, const float *y, int64_t first, int count) {
    int dim = q->dim, width = width_of(dim);
    tile->first = first;
    tile->count = count;
    tile->padded = (count + WIDTH - 1) / WIDTH * WIDTH;
    for (int j = 0; j < tile->padded; j++) {
        const float *point = y + (first + (j < count ? j : 0)) * dim; /* padding: any point, without weight */
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

/* Project the sums onto the tangent space at x, and divide them by the total weight. */
static void finish(const Request *q, int64_t i, const float *x, const double *lifted, const Query *query) {
    int dim = q->dim;
    for (int k = 0; k < q->kernels; k++) {
        double *sums = query->sums + (int64_t)k * (3 + width_of(dim)), *u = sums + 3, along = 0;
        double total = sums[1], shift = sums[0] == -INFINITY ? 0 : sums[0];
        q->log_density[k * q->n + i] = (float)(shift + log(total));
        if (q->sample_size) q->sample_size[k * q->n + i] = (float)(total * total / sums[2]);
        if (!q->gradient) continue;
        float *gradient = q->gradient + (k * q->n + i) * dim;
        double mass = total == 0 ? 0 : 1 / total;
        if (q->geometry == SPHERE) {
            double square = 0;
            for (int d = 0; d < dim; d++) {
                along += u[d] * x[d];
                square += (double)x[d] * x[d];
            }
            along /= square;
            for (int d = 0; d < dim; d++) u[d] -= along * x[d];
        } else if (q->geometry == HYPERBOLOID) {
            along = -u[0] * lifted[0];
            for (int d = 1; d < dim; d++) along += u[d] * lifted[d];
            for (int d = 0; d < dim; d++) u[d] += along * lifted[d];
        }
        for (int d = 0; d < dim; d++) gradient[d] = (float)(u[d] * mass);
    }
}

/* ------------------------------------------------------------------ threads */

typedef struct {
    const Request *request;
    const Tile *tiles; /* of all queries; NULL if every query has its own references */
    int64_t tile_count, block;
    _Atomic int64_t next;
    _Atomic int failed;
} Work;

/* References in a tile: as many as keep two copies of it within 32 kB. */
static int tile_size(int dim) {
    int size = 4096 / dim / WIDTH * WIDTH;
    return size < WIDTH ? WIDTH : size > TILE ? TILE : size;
}

static int tile_alloc(const Request *q, Tile *tile) {
    size_t size = tile_size(q->dim), width = width_of(q->dim);
    memset(tile, 0, sizeof *tile);
    tile->size = (int)size;
    if (q->geometry == HYPERBOLOID) return (tile->lifted = calloc(q->dim * size, sizeof(double))) != NULL;
    tile->columns = calloc(q->dim * size, sizeof(float));
    if (q->dim > SMALL) tile->rows = calloc(width * size, sizeof(float));
    return tile->columns && (q->dim <= SMALL || tile->rows);
}

static void tile_free(Tile *tile) {
    free(tile->columns);
    free(tile->rows);
    free(tile->lifted);
}

/* Queries i..end-1: tile by tile, so that a tile serves all of them while it is in the cache. */
static void run_block(const Work *work, int64_t i, int64_t end, Query *queries, float *points, double *lifted,
                      Tile *own, Scratch *scratch) {
    const Request *q = work->request;
    int64_t per_query = (int64_t)q->kernels * (3 + width_of(q->dim)), width = width_of(q->dim);
    for (int64_t b = 0; b < end - i; b++) {
        const float *x = q->x + (i + b) * q->dim;
        memset(queries[b].sums, 0, per_query * sizeof(double));
        for (int k = 0; k < q->kernels; k++) queries[b].sums[k * (3 + width)] = -INFINITY;
        memcpy(points + b * width, x, q->dim * sizeof(float));
        if (q->geometry == HYPERBOLOID) lift(q->dim, x, lifted + b * q->dim, 1);
        if (q->geometry == SPHERE) {
            double norm = norm_of(q->dim, x);
            queries[b].excess = (float)(norm - 1);
            queries[b].inverse = (float)(1 / norm);
        }
    }
    for (int64_t t = 0; t < work->tile_count; t++)
        for (int64_t b = 0; b < end - i; b++) {
            const Tile *tile = work->tiles + t;
            if (own) {
                int64_t first = t * own->size, left = q->m - first;
                pack(q, own, q->y + (i + b) * q->m * q->dim, first, left < own->size ? (int)left : own->size);
                tile = own;
            }
            accumulate(q, tile, i + b, points + b * width, lifted + b * q->dim, queries + b, scratch);
        }
    for (int64_t b = 0; b < end - i; b++)
        finish(q, i + b, q->x + (i + b) * q->dim, lifted + b * q->dim, queries + b);
}

static void *run_blocks(void *argument) {
    Work *work = argument;
    const Request *q = work->request;
    size_t block = work->block, width = width_of(q->dim);
    size_t per_query = (size_t)q->kernels * (3 + width_of(q->dim));
    Query *queries = calloc(block, sizeof *queries);
    double *sums = calloc(block * per_query, sizeof *sums), *lifted = calloc(block * q->dim, sizeof *lifted);
    float *points = calloc(block * width, sizeof *points);
    Scratch *scratch = calloc(1, sizeof *scratch);
    Tile own;
    int ready = queries && sums && lifted && points && scratch;
    if (q->own_references) ready &= tile_alloc(q, &own);
    if (ready) {
        for (size_t b = 0; b < block; b++) queries[b].sums = sums + b * per_query;
        int64_t i;
        while ((i = atomic_fetch_add(&work->next, work->block)) < q->n) {
            int64_t end = i + work->block < q->n ? i + work->block : q->n;
            run_block(work, i, end, queries, points, lifted, q->own_references ? &own : NULL, scratch);
        }
    } else
        work->failed = 1;
    if (q->own_references) tile_free(&own);
    free(queries);
    free(sums);
    free(lifted);
    free(points);
    free(scratch);
    return NULL;
}

/* The entry point. Returns 0, or 1 if memory runs out. */
int drift_scores(const Request *q) {
    int64_t size = tile_size(q->dim), count = (q->m + size - 1) / size, packed = 0;
    Tile *tiles = q->own_references ? NULL : calloc(count, sizeof *tiles);
    int failed = !q->own_references && !tiles;
    while (!failed && !q->own_references && packed < count) {
        int64_t first = packed * size, left = q->m - first;
        Tile *tile = tiles + packed++;
        failed = !tile_alloc(q, tile);
        if (!failed) pack(q, tile, q->y, first, left < size ? (int)left : (int)size);
    }
    if (!failed) {
        int64_t share = (q->n + q->threads - 1) / q->threads;
        Work work = {q, tiles, count, share < 16 ? share : 16, 0, 0};
        pthread_t *threads = calloc(q->threads, sizeof *threads);
        int started = 0;
        while (threads && started < q->threads - 1 &&
               pthread_create(threads + started, NULL, run_blocks, &work) == 0)
            started++;
        run_blocks(&work);
        for (int t = 0; t < started; t++) pthread_join(threads[t], NULL);
        free(threads);
        failed = work.failed;
    }
    for (int64_t t = 0; t < packed; t++) tile_free(tiles + t);
    free(tiles);
    return failed;
}
