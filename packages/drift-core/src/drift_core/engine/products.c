/* Scores over all pairs of two float32 clouds on a product of spheres, (S^{d-1})^L, such as sequences of L
   distributions: either of kernels of the total distance, r^2 = sum_l theta_l^2, or of products over the
   positions, log k = sum_l log k1(theta_l).

   Every position is a tile of its own. A first pass over the positions adds up squared angles (or logarithms
   of kernels), a second one the directions, for which it finds the angles anew: nothing is kept for every pair
   and position. Memory is linear in the clouds. */

#include "pairs.h"

typedef struct {
    Request request; /* of one position: x and y are those of the first one */
    int64_t positions;
    int32_t product;
    int32_t orthant; /* no coordinate is negative, and so no angle above a right one */
} Product;

typedef struct {
    const Product *product;
    const Tile *tiles; /* [blocks of references, positions] */
    const float *centres; /* [positions, width] */
    int64_t blocks;
    _Atomic int64_t next;
    _Atomic int failed;
} Work;

/* What a thread needs for a group of queries. */
typedef struct {
    float *points;    /* [positions, GROUP, 3, width] */
    Query *queries;   /* [positions, GROUP] */
    double *sums;     /* [GROUP, 3 + positions * stride] */
    Scratch *at;      /* [GROUP]: of a position */
    Scratch *total;   /* [GROUP]: of all positions */
    Tile *met;        /* [positions]: what the queries meet of a block of references */
} Group;

/* Sums of a position: `SMALL` or the padded dimensions. */
INLINE int stride_of(int dim) { return dim > SMALL ? width_of(dim) : SMALL; }

/* Angles of a group at a position, and for products the kernel there. */
static void find_position(const Product *p, const Kernel *kernel, int queries, const Tile *tile, const Group *g,
                          int64_t l) {
    const Request *q = &p->request;
    const Query *query = g->queries + l * GROUP;
    if (q->dim > SMALL && p->orthant) find_all_squares(queries, 0, q->dim, tile, query, g->at);
    else if (q->dim > SMALL) find_all_squares(queries, 1, q->dim, tile, query, g->at);
    for (int c = 0; c < queries; c++)
        if (p->product && kernel->form == TABLE_OF_SQUARES) {
            find_pairs(TABLE_OF_SQUARES, q, tile, NULL, query + c, g->at + c);
            tabulated_squares(q, kernel, tile, g->at + c);
        } else {
            find_pairs(-1, q, tile, NULL, query + c, g->at + c);
            if (p->product) evaluate(kernel, kernel->rate, q->displacement, tile->padded, g->at + c);
        }
}

/* First pass: logits and slopes of the whole points, and from them the weights. */
static void find_weights(const Product *p, const Kernel *kernel, int queries, const Tile *tiles, const Group *g,
                         int64_t i) {
    const Request *q = &p->request;
    int padded = tiles->padded;
    int64_t width = p->positions * stride_of(q->dim);
    for (int c = 0; c < queries; c++) {
        memset(g->total[c].logit, 0, sizeof g->total[c].logit);
        memset(g->total[c].weight, 0, sizeof g->total[c].weight);
    }
    for (int64_t l = 0; l < p->positions; l++) {
        find_position(p, kernel, queries, tiles + l, g, l);
        for (int c = 0; c < queries; c++)
            for (int j = 0; j < padded; j += WIDTH) { /* compensated sums (Kahan), their errors in the weights */
                Vector r = load(g->at[c].r + j), term = p->product ? load(g->at[c].logit + j) : r * r;
                Vector before = load(g->total[c].logit + j);
                term -= load(g->total[c].weight + j);
                store(g->total[c].logit + j, before + term);
                store(g->total[c].weight + j, before + term - before - term);
            }
    }
    for (int c = 0; c < queries; c++) {
        Scratch *s = g->total + c;
        double *sums = g->sums + c * (3 + width);
        for (int j = 0; j < padded; j += WIDTH) {
            Vector square = load(s->logit + j), inverse = inverse_root(square);
            store(s->r + j, square * inverse);
            store(s->inverse + j, inverse);
            store(s->slope + j, inverse * 0 + 1);
        }
        if (!p->product) evaluate(kernel, kernel->rate, q->displacement, padded, s);
        add_weights(padded, s, weigh(q, 1, tiles, i + c, s, (int)width, sums), sums);
    }
}

/* Sums of a (y - side x) in few dimensions, with the weights in s->weight. */
INLINE void add_columns(int dim, const Tile *tile, const float *x, const Scratch *s, double *sums) {
    Vector parts[SMALL] = {{0}};
    for (int j = 0; j < tile->padded; j += WIDTH) {
        Vector a = load_once(s->weight + j), side = load_once(s->side + j);
        for (int k = 0; k < dim; k++)
            parts[k] += a * (load(tile->columns + k * tile->size + j) - signed_by(side, spread(x[k])));
    }
    for (int k = 0; k < dim; k++) sums[k] += sum_of(parts[k]);
}

/* Second pass: with the weights, directions at every position. */
static void add_positions(const Product *p, const Kernel *kernel, int queries, const Tile *tiles, const Group *g) {
    const Request *q = &p->request;
    int dim = q->dim, width = width_of(dim), stride = stride_of(dim), padded = tiles->padded;
    for (int64_t l = 0; l < p->positions; l++) {
        const Query *query = g->queries + l * GROUP;
        double *sums[GROUP];
        find_position(p, kernel, queries, tiles + l, g, l);
        for (int c = 0; c < queries; c++) {
            Scratch *s = g->at + c;
            sums[c] = g->sums + c * (3 + p->positions * stride) + 3 + l * stride;
            for (int j = 0; j < padded; j += WIDTH) {
                Vector slope = p->product ? load(s->slope + j) : load(s->r + j) * load(s->inverse + j);
                store(s->weight + j, slope * load(g->total[c].weight + j));
            }
            if (dim == 2) add_columns(2, tiles + l, query[c].point, s, sums[c]);
            else if (dim == 3) add_columns(3, tiles + l, query[c].point, s, sums[c]);
            else if (dim == 4) add_columns(4, tiles + l, query[c].point, s, sums[c]);
        }
        if (dim > SMALL && p->orthant) add_all_directions(1, 0, queries, width, tiles + l, query, g->at, sums);
        else if (dim > SMALL) add_all_directions(1, 1, queries, width, tiles + l, query, g->at, sums);
    }
}

/* Log-densities, and gradients projected to the tangent spaces. */
static void finish(const Product *p, int k, int64_t i, int c, const Group *g) {
    const Request *q = &p->request;
    int dim = q->dim, stride = stride_of(dim);
    double *sums = g->sums + c * (3 + p->positions * stride);
    double total = sums[1], shift = sums[0] == -INFINITY ? 0 : sums[0], mass = total == 0 ? 0 : 1 / total;
    q->log_density[k * q->n + i] = (float)(shift + log(total));
    q->sample_size[k * q->n + i] = (float)(total * total / sums[2]);
    for (int64_t l = 0; q->gradient && l < p->positions; l++) {
        const float *x = g->queries[l * GROUP + c].point;
        double *u = sums + 3 + l * stride, along = 0, square = 0;
        float *gradient = q->gradient + ((k * q->n + i) * p->positions + l) * dim;
        for (int d = 0; d < dim; d++) {
            along += u[d] * x[d];
            square += (double)x[d] * x[d];
        }
        for (int d = 0; d < dim; d++) gradient[d] = (float)((u[d] - along / square * x[d]) * mass);
    }
}

static void run_group(const Work *work, int64_t i, int queries, const Group *g) {
    const Product *p = work->product;
    const Request *q = &p->request;
    int64_t dim = q->dim, width = width_of(q->dim), stride = 3 + p->positions * stride_of(q->dim);
    for (int64_t l = 0; l < p->positions; l++)
        for (int c = 0; c < queries; c++) {
            Query *query = g->queries + l * GROUP + c;
            query->point = g->points + (l * GROUP + c) * 3 * width;
            place(q, q->x + ((i + c) * p->positions + l) * dim, work->centres + l * width, query);
        }
    for (int k = 0; k < q->kernels; k++) {
        memset(g->sums, 0, queries * stride * sizeof(double));
        for (int c = 0; c < queries; c++) g->sums[c * stride] = -INFINITY;
        for (int64_t b = 0; b < work->blocks; b++) {
            for (int64_t l = 0; l < p->positions; l++)
                g->met[l] = met_by(queries, q, work->tiles + b * p->positions + l, i);
            if (g->met->count <= 0) continue;
            find_weights(p, q->kernel + k, queries, g->met, g, i);
            if (q->gradient) add_positions(p, q->kernel + k, queries, g->met, g);
        }
        for (int c = 0; c < queries; c++) finish(p, k, i + c, c, g);
    }
}

static void *run_groups(void *argument) {
    Work *work = argument;
    const Product *p = work->product;
    int64_t n = p->request.n;
    size_t positions = p->positions, stride = 3 + positions * stride_of(p->request.dim);
    Group g = {
        .points = calloc(positions * GROUP * 3 * width_of(p->request.dim), sizeof(float)),
        .queries = calloc(positions * GROUP, sizeof(Query)),
        .sums = calloc(GROUP * stride, sizeof(double)),
        .at = calloc(GROUP, sizeof(Scratch)),
        .total = calloc(GROUP, sizeof(Scratch)),
        .met = calloc(positions, sizeof(Tile)),
    };
    if (g.points && g.queries && g.sums && g.at && g.total && g.met) {
        int64_t i;
        while ((i = atomic_fetch_add(&work->next, GROUP)) < n)
            run_group(work, i, n - i < GROUP ? (int)(n - i) : GROUP, &g);
    } else
        work->failed = 1;
    free(g.points);
    free(g.queries);
    free(g.sums);
    free(g.at);
    free(g.total);
    free(g.met);
    return NULL;
}

/* The entry point. Returns 0, or 1 if memory runs out. */
int drift_product_scores(const Product *p) {
    const Request *q = &p->request;
    int64_t size = tile_size(q->dim, q->m), blocks = (q->m + size - 1) / size, packed = 0;
    int width = width_of(q->dim);
    Tile *tiles = calloc(blocks * p->positions, sizeof *tiles);
    float *centres = malloc(p->positions * width * sizeof *centres);
    int failed = !tiles || !centres;
    for (int64_t l = 0; centres && l < p->positions; l++)
        find_centre(q->dim, q->y + l * q->dim, q->m, p->positions * q->dim, centres + l * width);
    while (!failed && packed < blocks * p->positions) {
        int64_t first = packed / p->positions * size, left = q->m - first, l = packed % p->positions;
        Tile *tile = tiles + packed++;
        int count = left < size ? (int)left : (int)size;
        failed = !tile_alloc(q, (int)size, tile);
        if (!failed)
            pack(q, tile, q->y + l * q->dim, p->positions * q->dim, centres + l * width, first, count);
    }
    if (!failed) {
        Work work = {p, tiles, centres, blocks, 0, 0};
        drift_threads(q->threads, q->n, run_groups, &work);
        failed = work.failed;
    }
    for (int64_t t = 0; t < packed; t++) free(tiles[t].memory);
    free(tiles);
    free(centres);
    return failed;
}
