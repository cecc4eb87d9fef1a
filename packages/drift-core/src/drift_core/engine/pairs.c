/* Kernel-smoothed log-densities and their gradients over all pairs of two float32 clouds, in one pass.

   References are packed into tiles that fit a cache, one row per coordinate. For a tile and one query loops over
   vectors find distances and directions, kernel values, and the sums of an online softmax (Milakov and
   Gimelshein 2018, arXiv 1805.02867). Sums over a tile are float32, sums of tiles float64. Directions are sums
   of differences y - x, so that near-coincident points keep their digits; on the sphere y + x takes their place
   beyond a right angle. In many dimensions distances and directions are matrix products of points less the
   centre of the references, and of differences for the pairs whose products would cancel. Hyperboloids are
   float64 up to the distance: their coordinates grow like exp(radius).

   The result of a query depends neither on the other queries nor on the number of threads. */

#include "pairs.h"

/* Add the weights and, in few dimensions, the directions of a query. */
static void add(const Request *q, const Tile *tile, const float *x, Scratch *s, Scale scale, double *sums) {
    int dim = q->gradient ? q->dim : 0, sided = q->geometry == SPHERE;
    if (dim == 0) add_small(0, 0, tile, x, s, scale, sums);
    else if (q->geometry == HYPERBOLOID) {
        add_weights(tile->padded, s, scale, sums);
        if (dim == 3) add_lifted(3, tile, s, sums);
        else add_lifted(dim, tile, s, sums);
    } else if (dim > SMALL) add_weights(tile->padded, s, scale, sums);
    else if (sided) {
        if (dim == 2) add_small(1, 2, tile, x, s, scale, sums);
        else if (dim == 3) add_small(1, 3, tile, x, s, scale, sums);
        else add_small(1, 4, tile, x, s, scale, sums);
    } else if (dim == 1) add_small(0, 1, tile, x, s, scale, sums);
    else if (dim == 2) add_small(0, 2, tile, x, s, scale, sums);
    else if (dim == 3) add_small(0, 3, tile, x, s, scale, sums);
    else add_small(0, 4, tile, x, s, scale, sums);
}

/* Add a tile to the sums of queries i, i + 1, ..., at most `GROUP` of them. */
static void accumulate(int queries, const Request *q, const Tile *tile, int64_t i, const double *lifted,
                       Query *query, Scratch *s) {
    int dim = q->dim, width = width_of(dim), sphere = q->geometry == SPHERE;
    int form = form_of(q);
    int many = dim > SMALL && q->geometry != HYPERBOLOID;
    if (many && sphere) find_all_squares(queries, 1, dim, tile, query, s);
    else if (many) find_all_squares(queries, 0, dim, tile, query, s);
    for (int c = 0; c < queries; c++)
        if (form == LAPLACE) find_pairs(LAPLACE, q, tile, lifted + c * dim, query + c, s + c);
        else if (form == GAUSSIAN) find_pairs(GAUSSIAN, q, tile, lifted + c * dim, query + c, s + c);
        else if (form == TABLE_OF_SQUARES) find_pairs(TABLE_OF_SQUARES, q, tile, lifted + c * dim, query + c, s + c);
        else find_pairs(-1, q, tile, lifted + c * dim, query + c, s + c);
    for (int k = 0; k < q->kernels; k++) {
        double *sums[GROUP];
        for (int c = 0; c < queries; c++) {
            double *own = query[c].sums + (int64_t)k * (3 + width);
            if (form != LAPLACE && form != GAUSSIAN) evaluate_pairs(q, q->kernel + k, tile, s + c);
            Scale scale = weigh(q, unit_of(q->kernel + k), tile, i + c, s + c, width, own);
            add(q, tile, query[c].point, s + c, scale, own);
            sums[c] = own + 3;
        }
        if (many && q->gradient) {
            if (sphere) add_all_directions(1, 1, queries, width, tile, query, s, sums);
            else add_all_directions(0, 0, queries, width, tile, query, s, sums);
        }
    }
}

/* Project the sums onto the tangent space at x, and divide them by the total weight. */
static void finish(const Request *q, int64_t i, const float *x, const double *lifted, const Query *query) {
    int dim = q->dim;
    for (int k = 0; k < q->kernels; k++) {
        double *sums = query->sums + (int64_t)k * (3 + width_of(dim)), *u = sums + 3, along = 0;
        float unit = unit_of(q->kernel + k);
        double total = sums[1], shift = sums[0] == -INFINITY ? 0 : sums[0];
        q->log_density[k * q->n + i] = (float)(shift * (q->log_weight ? 1 : unit) + log(total));
        if (q->sample_size) q->sample_size[k * q->n + i] = (float)(total * total / sums[2]);
        if (!q->gradient) continue;
        float *gradient = q->gradient + (k * q->n + i) * dim;
        double mass = total == 0 ? 0 : (q->displacement ? 1 : unit) / total;
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
    const Tile *tiles;   /* of all queries; NULL if every query has its own references */
    const float *centre; /* the same */
    int64_t tile_count, block;
    _Atomic int64_t next;
    _Atomic int failed;
} Work;

/* Queries i..end-1: tile by tile, so that a tile serves all of them while it is in the cache. */
static void run_block(const Work *work, int64_t i, int64_t end, Query *queries, double *lifted, Tile *own,
                      Scratch *scratch) {
    const Request *q = work->request;
    int64_t per_query = (int64_t)q->kernels * (3 + width_of(q->dim)), width = width_of(q->dim);
    for (int64_t b = 0; b < end - i; b++) {
        const float *x = q->x + (i + b) * q->dim;
        memset(queries[b].sums, 0, per_query * sizeof(double));
        for (int k = 0; k < q->kernels; k++) queries[b].sums[k * (3 + width)] = -INFINITY;
        if (own) find_centre(q->dim, q->y + (i + b) * q->m * q->dim, q->m, q->dim, queries[b].point + width);
        place(q, x, own ? queries[b].point + width : work->centre, queries + b);
        if (q->geometry == HYPERBOLOID) lift(q->dim, x, lifted + b * q->dim, 1);
    }
    int64_t group = own || q->dim <= SMALL ? 1 : GROUP;
    for (int64_t t = 0; t < work->tile_count; t++)
        for (int64_t b = 0; b < end - i; b += group) {
            const Tile *tile = work->tiles + t;
            if (own) {
                int64_t first = t * own->size, left = q->m - first;
                const float *y = q->y + (i + b) * q->m * q->dim, *centre = queries[b].point + width;
                pack(q, own, y, q->dim, centre, first, left < own->size ? (int)left : own->size);
                tile = own;
            }
            int together = end - i - b < group ? (int)(end - i - b) : (int)group;
            Tile met = met_by(together, q, tile, i + b);
            if (met.count > 0) accumulate(together, q, &met, i + b, lifted + b * q->dim, queries + b, scratch);
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
    float *points = calloc(block * 3 * width, sizeof *points);
    Scratch *scratch = calloc(GROUP, sizeof *scratch);
    Tile own;
    int ready = queries && sums && lifted && points && scratch;
    if (q->own_references) ready &= tile_alloc(q, tile_size(q->dim, q->m), &own);
    if (ready) {
        for (size_t b = 0; b < block; b++) {
            queries[b].point = points + 3 * b * width;
            queries[b].sums = sums + b * per_query;
        }
        int64_t i;
        while ((i = atomic_fetch_add(&work->next, work->block)) < q->n) {
            int64_t end = i + work->block < q->n ? i + work->block : q->n;
            run_block(work, i, end, queries, lifted, q->own_references ? &own : NULL, scratch);
        }
    } else
        work->failed = 1;
    if (q->own_references) free(own.memory);
    free(queries);
    free(sums);
    free(lifted);
    free(points);
    free(scratch);
    return NULL;
}

/* The entry point. Returns 0, or 1 if memory runs out. */
int drift_scores(const Request *q) {
    int64_t size = tile_size(q->dim, q->m), count = (q->m + size - 1) / size, packed = 0;
    Tile *tiles = q->own_references ? NULL : calloc(count, sizeof *tiles);
    float *centre = q->own_references ? NULL : malloc(width_of(q->dim) * sizeof *centre);
    int failed = !q->own_references && (!tiles || !centre);
    if (centre) find_centre(q->dim, q->y, q->m, q->dim, centre);
    while (!failed && !q->own_references && packed < count) {
        int64_t first = packed * size, left = q->m - first;
        Tile *tile = tiles + packed++;
        failed = !tile_alloc(q, (int)size, tile);
        if (!failed) pack(q, tile, q->y, q->dim, centre, first, left < size ? (int)left : (int)size);
    }
    if (!failed) {
        int64_t share = (q->n + q->threads - 1) / q->threads;
        Work work = {q, tiles, centre, count, share < 16 ? share : 16, 0, 0};
        drift_threads(q->threads, q->n, run_blocks, &work);
        failed = work.failed;
    }
    for (int64_t t = 0; t < packed; t++) free(tiles[t].memory);
    free(tiles);
    free(centre);
    return failed;
}
