/* Scores of points of (S^{K-1})^L against one-hot references, given as tokens.

   What a reference adds at a position is one of K numbers: a point is a table with a row for each letter of each
   position, of squared angles to the vertices, or of log k1 of the angles for product kernels. Distances
   are sums of the rows that a reference names, and the gradient needs for every row the weight of all references
   that name it. Vectors run over queries, whose tables stand side by side. Nothing is kept for a pair. References that
   the log-weights exclude for all queries of a vector cost nothing but a look at these. */

#include "pairs.h"

#define PAIRS 256                  /* pairs at a time, */
#define REFERENCES (PAIRS / WIDTH) /* and references */
#define POSITIONS 32              /* positions whose sum is float32; sums of those are float64 */
#define TOGETHER 64               /* tiles whose weights are summed in float32; sums of those are float64 */
#define SLACK 20.0f               /* nats by which a logit may exceed the base before the sums are rescaled */

typedef struct {
    int32_t kernels, product, displacement, threads;
    int64_t n, m, positions, rows; /* rows = positions * letters */
    const float *table;            /* [rows, n] of squared angles; for products [kernels, rows, n] of logarithms */
    const int32_t *named;          /* [m, positions]: rows that a reference names */
    const float *log_weight;       /* of pairs, or NULL */
    int64_t row_stride, column_stride;
    const Kernel *kernel; /* [kernels] of the total distance, or NULL for products */
    float *log_density;   /* [kernels, n] */
    float *share;         /* [kernels, rows, n]: share of the references that name a row */
} Tokens;

/* Sums of a kernel for a block of queries, relative to exp(base). */
typedef struct {
    Vector base;
    double total[WIDTH];
    float *recent; /* [rows, WIDTH], of the last tiles */
    double *share; /* [rows, WIDTH] */
} Sums;

/* References that are not excluded for all queries of a block. */
typedef struct {
    int64_t count;
    int32_t *index; /* [m] */
    char *met;      /* [m]: whether it is one of them */
} Present;

typedef struct {
    const Tokens *tokens;
    _Atomic int64_t next;
    _Atomic int failed;
} Work;

/* Sum of at most `POSITIONS` rows. */
INLINE Vector sum_of_rows(const float *table, const int32_t *named, int64_t positions) {
    Vector even = {0}, odd = {0};
    int64_t l = 0;
    for (; l + 2 <= positions; l += 2) {
        even += load(table + (int64_t)named[l] * WIDTH);
        odd += load(table + (int64_t)named[l + 1] * WIDTH);
    }
    return l < positions ? even + odd + load(table + (int64_t)named[l] * WIDTH) : even + odd;
}

/* Sum of the rows that a reference names. */
INLINE Vector looked_up(const float *table, const int32_t *named, int64_t positions) {
    if (positions <= POSITIONS) return sum_of_rows(table, named, positions);
    double wide[WIDTH] = {0};
    Vector sum;
    for (int64_t l = 0; l < positions; l += POSITIONS) {
        sum = sum_of_rows(table, named + l, positions - l < POSITIONS ? positions - l : POSITIONS);
        for (int c = 0; c < WIDTH; c++) wide[c] += sum[c];
    }
    for (int c = 0; c < WIDTH; c++) sum[c] = (float)wide[c];
    return sum;
}

/* References that queries i, i + 1, ... meet, in ascending order. */
static void find_present(const Tokens *q, int64_t i, Present *present) {
    int queries = !q->log_weight ? 0 : q->row_stride == 0 ? 1 : q->n - i < WIDTH ? (int)(q->n - i) : WIDTH;
    memset(present->met, queries == 0, q->m);
    for (int c = 0; c < queries; c++) {
        const float *w = q->log_weight + (i + c) * q->row_stride;
        for (int64_t j = 0; j < q->m; j++) present->met[j] |= w[j * q->column_stride] != -INFINITY;
    }
    present->count = 0;
    for (int64_t j = 0; j < q->m; j++) {
        present->index[present->count] = (int32_t)j;
        present->count += present->met[j];
    }
}

/* Sums of `count` references in s->logit, and for kernels of the distance that in s->r. */
static void look_up(const Tokens *q, const float *table, const int32_t *index, int count, Scratch *s) {
    for (int j = 0; j < count; j++) {
        Vector sum = looked_up(table, q->named + index[j] * q->positions, q->positions);
        store(s->logit + j * WIDTH, sum);
        if (!q->product) {
            Vector inverse = inverse_root(sum);
            store(s->r + j * WIDTH, sum * inverse);
            store(s->inverse + j * WIDTH, inverse);
        }
    }
}

/* Add the log-weights of queries i, i + 1, ..., and exclude what is not there. */
static void weigh_block(const Tokens *q, int64_t i, const int32_t *index, int count, Scratch *s) {
    int queries = q->n - i < WIDTH ? (int)(q->n - i) : WIDTH;
    if (q->log_weight)
        for (int c = 0; c < queries; c++) {
            const float *w = q->log_weight + (i + c) * q->row_stride;
            for (int j = 0; j < count; j++) s->logit[j * WIDTH + c] += w[index[j] * q->column_stride];
        }
    for (int j = count * WIDTH; j < PAIRS; j++) s->logit[j] = -INFINITY;
}

/* Raise the bases that a logit exceeds by more than `SLACK`. */
static void raise_bases(const Tokens *q, const Scratch *s, Sums *sums) {
    Vector most = load(s->logit);
    for (int j = WIDTH; j < PAIRS; j += WIDTH) {
        Vector logit = load(s->logit + j);
        most = larger(logit, most);
    }
    Ints higher = most > sums->base + SLACK;
    int any = 0;
    for (int c = 0; c < WIDTH; c++) any |= higher[c];
    if (!any) return;
    Vector raised = choose(higher, most, sums->base), factor = exp_of(sums->base - raised);
    sums->base = raised;
    for (int c = 0; c < WIDTH; c++) sums->total[c] *= factor[c];
    for (int64_t row = 0; row < q->rows; row++) {
        store(sums->recent + row * WIDTH, load(sums->recent + row * WIDTH) * factor);
        for (int c = 0; c < WIDTH; c++) sums->share[row * WIDTH + c] *= factor[c];
    }
}

/* Add the weights of a tile, and those of the rows that its references name. */
static void add_tile(const Tokens *q, const int32_t *index, int count, Scratch *s, Sums *sums) {
    Vector total = {0};
    for (int j = 0; j < count; j++) {
        Vector w = exp_of(load(s->logit + j * WIDTH) - sums->base);
        total += w;
        if (!q->product) w *= load(s->slope + j * WIDTH);
        const int32_t *named = q->named + index[j] * q->positions;
        for (int64_t l = 0; l < q->positions; l++) {
            float *row = sums->recent + (int64_t)named[l] * WIDTH;
            store(row, load(row) + w);
        }
    }
    for (int c = 0; c < WIDTH; c++) sums->total[c] += total[c];
}

/* Move the float32 sums of the last tiles to the float64 ones. */
static void settle(const Tokens *q, Sums *sums) {
    for (int64_t at = 0; at < q->rows * WIDTH; at++) {
        sums->share[at] += sums->recent[at];
        sums->recent[at] = 0;
    }
}

static void finish(const Tokens *q, int k, int64_t i, const Sums *sums) {
    int queries = q->n - i < WIDTH ? (int)(q->n - i) : WIDTH;
    double mass[WIDTH];
    for (int c = 0; c < queries; c++) {
        double total = sums->total[c];
        mass[c] = total == 0 ? 0 : 1 / total;
        q->log_density[k * q->n + i + c] = (float)(sums->base[c] + log(total));
    }
    for (int64_t row = 0; row < q->rows; row++)
        for (int c = 0; c < queries; c++)
            q->share[(k * q->rows + row) * q->n + i + c] = (float)(sums->share[row * WIDTH + c] * mass[c]);
}

/* Copy the columns of queries i, i + 1, ... of a table. */
static void take_columns(const Tokens *q, const float *table, int64_t i, float *block) {
    int queries = q->n - i < WIDTH ? (int)(q->n - i) : WIDTH;
    for (int64_t row = 0; row < q->rows; row++)
        memcpy(block + row * WIDTH, table + row * q->n + i, queries * sizeof(float));
}

static void run_queries(const Tokens *q, int64_t i, float *block, Sums *sums, Scratch *s, Present *present) {
    find_present(q, i, present);
    for (int k = 0; k < q->kernels; k++) {
        if (k == 0 || q->product) take_columns(q, q->table + (q->product ? k * q->rows * q->n : 0), i, block);
        sums->base = (Vector){0} - 1e38f;
        memset(sums->total, 0, sizeof sums->total);
        memset(sums->share, 0, q->rows * WIDTH * sizeof(double));
        for (int64_t first = 0, tile = 1; first < present->count; first += REFERENCES, tile++) {
            const int32_t *index = present->index + first;
            int count = present->count - first < REFERENCES ? (int)(present->count - first) : REFERENCES;
            look_up(q, block, index, count, s);
            if (!q->product) evaluate(q->kernel + k, q->kernel[k].rate, q->displacement, PAIRS, s);
            weigh_block(q, i, index, count, s);
            raise_bases(q, s, sums);
            add_tile(q, index, count, s, sums);
            if (tile % TOGETHER == 0) settle(q, sums);
        }
        settle(q, sums);
        finish(q, k, i, sums);
    }
}

static void *run_blocks(void *argument) {
    Work *work = argument;
    const Tokens *q = work->tokens;
    size_t size = q->rows * WIDTH;
    float *block = calloc(size, sizeof *block);
    Scratch *scratch = calloc(1, sizeof *scratch);
    Sums *sums = aligned_alloc(sizeof(Vector), (sizeof *sums + sizeof(Vector) - 1) / sizeof(Vector) * sizeof(Vector));
    float *recent = calloc(size, sizeof *recent);
    double *share = calloc(size, sizeof *share);
    Present present = {0, malloc(q->m * sizeof *present.index + 1), malloc(q->m + 1)};
    if (block && scratch && sums && recent && share && present.index && present.met) {
        int64_t i;
        sums->recent = recent;
        sums->share = share;
        while ((i = atomic_fetch_add(&work->next, WIDTH)) < q->n) run_queries(q, i, block, sums, scratch, &present);
    } else
        work->failed = 1;
    free(block);
    free(scratch);
    free(sums);
    free(recent);
    free(share);
    free(present.index);
    free(present.met);
    return NULL;
}

/* The entry point. Returns 0, or 1 if memory runs out. */
int drift_token_scores(const Tokens *q) {
    Work work = {q, 0, 0};
    int64_t blocks = (q->n + WIDTH - 1) / WIDTH;
    drift_threads(q->threads, blocks, run_blocks, &work);
    return work.failed;
}
