/* Exact nearest neighbours among float32 points of few dimensions.

   The points are put in the order of the leaves of a balanced k-d tree (Bentley 1975), LEAF to a leaf. FAN
   leaves next to one another share a node, as do FAN nodes, and so on to the root. A node holds the bounding
   boxes of its children. A query compares them at once and visits them from the nearest on, as far as the
   k-th of the points found so far.

   Squared distances are float64: squares of differences of float32 numbers neither overflow nor vanish there.
   Neighbours are ordered by distance and then by index, so that there is but one result, whatever the tree
   and the number of threads. Points with infinite or NaN coordinates are kept out of the tree: they follow
   all others, in the order of their indices. All points have that order for queries with such coordinates. */

#include "pairs.h"

#include <float.h>

#define LEAF 64     /* points */
#define FAN 16      /* children of a node */
#define LEVELS 8    /* most levels of nodes */
#define MOST 8      /* dimensions */
#define BLOCK 16    /* queries that a thread takes at once */
#define SHARED 32   /* leaves from which on threads share them */
#define EVENLY 4    /* ranges for each thread */
#define FEW 12      /* keys that are sorted by insertion */
#define BUCKETS 128 /* to which keys are distributed, as the first step of sorting them */

/* Numbers, and an index of each. They are ordered by number and then by index, and no two are equal. Numbers are
   integers in the order of the floats that they stand for, since integers are compared faster: with `ordered` of
   a float, or with the bits of a squared distance. */
typedef struct {
    int64_t *value;
    int32_t *index;
} Keys;

typedef struct {
    int32_t dim, threads;
    int64_t m, finite, stride; /* finite: points in the tree; stride: m rounded up to a multiple of LEAF */
    float *columns;            /* [dim, stride]: points in the tree, in the order of the leaves, then NaN */
    int32_t *index;            /* [stride]: of the points in the tree, and of all others */
    float *boxes;              /* [nodes, dim, 2, FAN]: lower and upper bounds of children; root last */
} Tree;

/* ------------------------------------------------------------------ keys */

INLINE Keys from(Keys keys, int64_t i) { return (Keys){keys.value + i, keys.index + i}; }

/* Negative floats are in the reverse order of their bits. */
INLINE int64_t ordered(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ ((bits >> 31) & INT32_MAX);
}

INLINE int64_t bits_of(double square) {
    int64_t bits;
    memcpy(&bits, &square, sizeof bits);
    return bits;
}

INLINE double square_of_bits(int64_t bits) {
    double square;
    memcpy(&square, &bits, sizeof square);
    return square;
}

INLINE int less(int64_t value, int32_t index, int64_t pivot, int32_t pivot_index) {
    return value < pivot + (index < pivot_index);
}

INLINE void swap(Keys keys, int64_t i, int64_t j) {
    int64_t value = keys.value[i];
    int32_t index = keys.index[i];
    keys.value[i] = keys.value[j];
    keys.index[i] = keys.index[j];
    keys.value[j] = value;
    keys.index[j] = index;
}

INLINE void swap_unless_ordered(Keys keys, int64_t i, int64_t j) {
    if (less(keys.value[j], keys.index[j], keys.value[i], keys.index[i])) swap(keys, i, j);
}

/* Partition by the median of three keys, of which two are from pseudo-random places; return its own place. */
INLINE int64_t partition(Keys keys, int64_t n) {
    int64_t last = n - 1, place = 0;
    uint64_t random = (uint64_t)n * 0x9e3779b97f4a7c15;
    int64_t a = (int64_t)((random >> 32) * last >> 32), b = (int64_t)((random & UINT32_MAX) * last >> 32);
    swap_unless_ordered(keys, a, b);
    swap_unless_ordered(keys, a, last);
    swap_unless_ordered(keys, last, b);
    int64_t pivot = keys.value[last];
    int32_t pivot_index = keys.index[last];
    for (int64_t i = 0; i < last; i++) {
        int smaller = less(keys.value[i], keys.index[i], pivot, pivot_index);
        swap(keys, i, place);
        place += smaller;
    }
    swap(keys, place, last);
    return place;
}

/* Put the smallest `count` of n keys first, and the largest of them last among them. */
static void select_smallest(Keys keys, int64_t n, int64_t count) {
    while (n > 1) {
        int64_t place = partition(keys, n);
        if (place == count - 1) return;
        if (place >= count) n = place;
        else {
            keys = from(keys, place + 1);
            n -= place + 1;
            count -= place + 1;
        }
    }
}

/* By insertion: fast if no key is far from its place. */
INLINE void sort_nearly_sorted(Keys keys, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        int64_t value = keys.value[i], j = i;
        int32_t index = keys.index[i];
        for (; j > 0 && less(value, index, keys.value[j - 1], keys.index[j - 1]); j--) {
            keys.value[j] = keys.value[j - 1];
            keys.index[j] = keys.index[j - 1];
        }
        keys.value[j] = value;
        keys.index[j] = index;
    }
}

static void sort(Keys keys, int64_t n) {
    while (n > FEW) {
        int64_t place = partition(keys, n), after = n - place - 1;
        Keys larger = from(keys, place + 1);
        sort(place < after ? keys : larger, place < after ? place : after);
        keys = place < after ? larger : keys;
        n = place < after ? after : place;
    }
    sort_nearly_sorted(keys, n);
}

/* The bucket of a squared distance; buckets are of equal width. */
INLINE int bucket_of(int64_t value, double scale) { return (int)(square_of_bits(value) * scale); }

/* Distribute n squared distances, none above `largest`, to buckets, one after another in `to`. Returns the end of
   the bucket with the `count`-th smallest; `ends` are those of all buckets. */
INLINE int64_t distribute(Keys keys, int64_t n, int64_t count, double largest, Keys to, int32_t *ends) {
    int32_t total = 0;
    double scale = largest > 1e-200 ? (BUCKETS - 1) / largest : 0;
    memset(ends, 0, (BUCKETS + 1) * sizeof *ends);
    for (int64_t i = 0; i < n; i++) ends[bucket_of(keys.value[i], scale) + 1]++;
    for (int c = 0; c < BUCKETS; c++) ends[c] = total += ends[c];
    for (int64_t i = 0; i < n; i++) {
        int32_t place = ends[bucket_of(keys.value[i], scale)]++;
        to.value[place] = keys.value[i];
        to.index[place] = keys.index[i];
    }
    int last = 0;
    while (ends[last] < count) last++;
    return ends[last];
}

INLINE double largest_of(const int64_t *squares, int64_t n) {
    int64_t largest = squares[0];
    for (int64_t i = 1; i < n; i++) largest = squares[i] > largest ? squares[i] : largest;
    return square_of_bits(largest);
}

/* ------------------------------------------------------------------ the tree */

typedef struct {
    Tree *tree;
    Keys keys;         /* [finite] */
    uint32_t *numbers; /* [finite] */
} Builder;

/* Leaves to be divided. */
typedef struct {
    int64_t first, leaves;
} Range;

/* Ranges of leaves, which threads take one at a time. */
typedef struct {
    const Builder *builder;
    Range *ranges; /* room for twice as many */
    int64_t count;
    _Atomic int64_t next;
} Ranges;

INLINE int64_t parts(int64_t whole, int64_t size) { return (whole + size - 1) / size; }

/* Levels of nodes above `leaves`, and the first node of every level. */
INLINE int find_levels(int64_t leaves, int64_t *first) {
    int levels = 0;
    int64_t nodes = 0, count = leaves;
    do {
        first[levels++] = nodes;
        count = parts(count, FAN);
        nodes += count;
    } while (count > 1);
    return levels;
}

/* Bounds of a coordinate over slots [begin, end), both multiples of LEAF. NaN has none. */
INLINE void find_bounds(const float *column, int64_t begin, int64_t end, float *lower, float *upper) {
    Vector least = (Vector){0} + INFINITY, most = -least;
    for (int64_t j = begin; j < end; j += WIDTH) {
        Vector v = load(column + j);
        least = choose(v < least, v, least);
        most = choose(v > most, v, most);
    }
    *lower = INFINITY;
    *upper = -INFINITY;
    for (int k = 0; k < WIDTH; k++) {
        *lower = least[k] < *lower ? least[k] : *lower;
        *upper = most[k] > *upper ? most[k] : *upper;
    }
}

/* Put the numbers of four bytes of slots [begin, begin + n) in the order of the keys. */
INLINE void reorder(const Builder *b, void *numbers, int64_t begin, int64_t n) {
    char *old = (char *)numbers + begin * 4;
    for (int64_t i = begin; i < begin + n; i++) memcpy(b->numbers + i, old + (int64_t)b->keys.index[i] * 4, 4);
    memcpy(old, b->numbers + begin, n * 4);
}

/* Divide leaves in two along the widest side of their box, so that those of a node stay together: keeps the lower
   ones in the range, and returns the upper ones, none of a single leaf. */
static Range halve(const Builder *b, Range *r) {
    Tree *tree = b->tree;
    int64_t begin = r->first * LEAF, end = begin + r->leaves * LEAF, unit = 1;
    int axis = 0;
    double widest = -1;
    if (r->leaves < 2) return (Range){r->first + r->leaves, 0};
    for (int k = 0; k < tree->dim; k++) {
        float lower, upper;
        find_bounds(tree->columns + k * tree->stride, begin, end, &lower, &upper);
        if ((double)upper - lower > widest) {
            widest = (double)upper - lower;
            axis = k;
        }
    }
    while (unit * FAN < r->leaves) unit *= FAN;
    int64_t half = parts(r->leaves, unit) / 2 * unit, n = (end < tree->finite ? end : tree->finite) - begin;
    const float *column = tree->columns + axis * tree->stride + begin;
    Keys keys = from(b->keys, begin);
    for (int64_t i = 0; i < n; i++) {
        keys.value[i] = ordered(column[i]);
        keys.index[i] = (int32_t)i;
    }
    select_smallest(keys, n, half * LEAF);
    for (int k = 0; k < tree->dim; k++) reorder(b, tree->columns + k * tree->stride, begin, n);
    reorder(b, tree->index, begin, n);
    Range upper = {r->first + half, r->leaves - half};
    r->leaves = half;
    return upper;
}

/* Divide leaves until they are single. */
static void divide(const Builder *b, Range range) {
    if (range.leaves < 2) return;
    divide(b, halve(b, &range));
    divide(b, range);
}

static void *halve_ranges(void *argument) {
    Ranges *r = argument;
    int64_t i;
    while ((i = atomic_fetch_add(&r->next, 1)) < r->count) r->ranges[r->count + i] = halve(r->builder, r->ranges + i);
    return NULL;
}

static void *divide_ranges(void *argument) {
    Ranges *r = argument;
    int64_t i;
    while ((i = atomic_fetch_add(&r->next, 1)) < r->count) divide(r->builder, r->ranges[i]);
    return NULL;
}

/* Divide all leaves until they are single, in threads: level by level, until there are ranges enough to share
   evenly, or these are small. Returns 0, or 1 if memory runs out. */
static int divide_all(const Builder *b, int64_t leaves, int64_t threads) {
    int64_t most = threads > 1 ? EVENLY * threads : 1;
    Ranges r = {b, malloc(2 * most * sizeof *r.ranges), 1, 0};
    if (!r.ranges) return 1;
    r.ranges[0] = (Range){0, leaves};
    for (; r.count < most && r.count * SHARED < leaves; r.count *= 2) {
        r.next = 0;
        drift_threads(threads, r.count, halve_ranges, &r);
    }
    r.next = 0;
    drift_threads(threads, r.count, divide_ranges, &r);
    free(r.ranges);
    return 0;
}

/* The place of a bound of a child: of its lower one, and FAN numbers on of its upper one. */
INLINE float *bound_of(const Tree *tree, int64_t level, int64_t child, int k) {
    return tree->boxes + ((level + child / FAN) * tree->dim + k) * 2 * FAN + child % FAN;
}

/* Boxes of leaves, and of nodes from those of their children. Children that do not exist have empty ones. */
static void enclose(const Tree *tree, int64_t leaves) {
    int64_t first[LEVELS], count = leaves;
    int levels = find_levels(leaves, first);
    for (int level = 0; level < levels; level++) {
        int64_t places = parts(count, FAN) * FAN;
        for (int64_t child = 0; child < places; child++)
            for (int k = 0; k < tree->dim; k++) {
                float *bound = bound_of(tree, first[level], child, k), least = INFINITY, most = -INFINITY;
                int64_t begin = child * LEAF;
                if (child < count && level == 0)
                    find_bounds(tree->columns + k * tree->stride, begin, begin + LEAF, &least, &most);
                else if (child < count) {
                    const float *below = bound_of(tree, first[level - 1], child * FAN, k);
                    for (int c = 0; c < FAN; c++) {
                        least = below[c] < least ? below[c] : least;
                        most = below[FAN + c] > most ? below[FAN + c] : most;
                    }
                }
                bound[0] = least;
                bound[FAN] = most;
            }
        count = places / FAN;
    }
}

INLINE int is_finite(int dim, const float *point) {
    int finite = 1;
    for (int k = 0; k < dim; k++) finite &= fabsf(point[k]) <= FLT_MAX;
    return finite;
}

/* Finite points in columns, then NaN; the indices of the others after theirs. */
static void copy(Tree *tree, const float *points) {
    int64_t finite = 0, others = 0;
    for (int64_t i = 0; i < tree->m; i++) finite += is_finite(tree->dim, points + i * tree->dim);
    tree->finite = finite;
    for (int64_t i = 0, slot = 0; i < tree->m; i++) {
        const float *point = points + i * tree->dim;
        if (!is_finite(tree->dim, point)) {
            tree->index[finite + others++] = (int32_t)i;
            continue;
        }
        for (int k = 0; k < tree->dim; k++) tree->columns[k * tree->stride + slot] = point[k];
        tree->index[slot++] = (int32_t)i;
    }
    for (int k = 0; k < tree->dim; k++)
        for (int64_t j = finite; j < tree->stride; j++) tree->columns[k * tree->stride + j] = NAN;
    for (int64_t j = tree->m; j < tree->stride; j++) tree->index[j] = 0;
}

/* The first entry point: build the tree of points [m, dim]. Returns 0, or 1 if memory runs out. */
int drift_tree(Tree *tree, const float *points) {
    copy(tree, points);
    int64_t leaves = parts(tree->finite, LEAF);
    if (leaves == 0) return 0;
    int64_t n = tree->finite;
    Keys keys = {malloc(n * sizeof *keys.value), malloc(n * sizeof *keys.index)};
    Builder b = {tree, keys, malloc(n * sizeof *b.numbers)};
    int failed = !keys.value || !keys.index || !b.numbers;
    failed = failed || divide_all(&b, leaves, tree->threads);
    if (!failed) enclose(tree, leaves);
    free(keys.value);
    free(keys.index);
    free(b.numbers);
    return failed;
}

/* ------------------------------------------------------------------ queries */

typedef struct {
    const Tree *tree;
    int64_t first[LEVELS]; /* node of every level */
    int levels;
    double x[MOST];
    double bound;         /* largest squared distance of interest, */
    int32_t tie;          /* and of equal ones the index from which on there is none */
    int64_t count, limit; /* points found, and how many are too many */
    int64_t k;            /* wanted */
    Keys keys, spare;     /* [limit + LEAF]: squared distances and indices of the points found */
} Search;

INLINE int64_t limit_of(int64_t k) { return k + k / 2 + 1; }

/* Lower the bound to the largest squared distance found. First forget points if they are many: most but the k
   nearest, or all but them. */
INLINE void tighten(Search *s) {
    int32_t ends[BUCKETS + 1];
    double largest = s->bound < DBL_MAX ? s->bound : largest_of(s->keys.value, s->count);
    s->limit = limit_of(s->k);
    if (s->count < s->limit) {
        s->bound = largest;
        return;
    }
    Keys kept = s->spare;
    s->count = distribute(s->keys, s->count, s->k, largest, kept, ends);
    s->spare = s->keys;
    s->keys = kept;
    s->tie = INT32_MAX;
    if (s->count > s->limit) {
        select_smallest(kept, s->count, s->k);
        s->count = s->k;
        s->tie = kept.index[s->k - 1];
    }
    s->bound = largest_of(kept.value, s->count);
}

/* Put the k nearest of the points found first, in their order. */
INLINE void sort_nearest(Search *s) {
    int32_t ends[BUCKETS + 1];
    Keys sorted = s->spare;
    distribute(s->keys, s->count, s->k, s->bound, sorted, ends);
    int64_t begin = 0;
    for (int64_t c = 0; begin < s->k; begin = ends[c++])
        if (ends[c] > begin + FEW) sort(from(sorted, begin), ends[c] - begin);
    sort_nearly_sorted(sorted, begin);
    s->spare = s->keys;
    s->keys = sorted;
}

/* Append the keys of a leaf below the bound, and return how many they are. */
INLINE int64_t append(const int64_t *squares, const int32_t *index, int64_t bound, int32_t tie, Keys to) {
    int64_t count = 0;
#if defined __AVX512F__ && defined __AVX512VL__
    for (int j = 0; j < LEAF; j += 8) {
        __m512i value = _mm512_loadu_si512(squares + j);
        __m256i place = _mm256_loadu_si256((const void *)(index + j));
        __mmask8 below = _mm512_cmplt_epi64_mask(value, _mm512_set1_epi64(bound));
        __mmask8 equal = _mm512_cmpeq_epi64_mask(value, _mm512_set1_epi64(bound));
        below |= _mm256_mask_cmplt_epi32_mask(equal, place, _mm256_set1_epi32(tie));
        _mm512_storeu_si512(to.value + count, _mm512_maskz_compress_epi64(below, value));
        _mm256_storeu_si256((void *)(to.index + count), _mm256_maskz_compress_epi32(below, place));
        count += __builtin_popcount(below);
    }
#else
    for (int j = 0; j < LEAF; j++) {
        to.value[count] = squares[j];
        to.index[count] = index[j];
        count += less(squares[j], index[j], bound, tie);
    }
#endif
    return count;
}

/* `dim` may be a constant. */
INLINE void scan(int dim, Search *s, int64_t leaf) {
    const Tree *tree = s->tree;
    const float *columns = tree->columns + leaf * LEAF;
    int64_t squares[LEAF];
    for (int j = 0; j < LEAF; j += WIDTH / 2) {
        Doubles square = {0};
        for (int k = 0; k < dim; k++) {
            Doubles d = load_half(columns + k * tree->stride + j) - s->x[k];
            square += d * d;
        }
        Longs bits = (Longs)square & INT64_MAX; /* a NaN of either sign is above every bound */
        memcpy(squares + j, &bits, sizeof bits);
    }
    const int32_t *index = tree->index + leaf * LEAF;
    s->count += append(squares, index, bits_of(s->bound), s->tie, from(s->keys, s->count));
    if (s->count >= s->limit) tighten(s);
}

/* Squared distances of the boxes of a node, less a rounding error. */
INLINE void approach(int dim, const Search *s, int64_t node, int64_t *squares) {
    const float *box = s->tree->boxes + node * dim * 2 * FAN;
    for (int j = 0; j < FAN; j += WIDTH / 2) {
        Doubles square = {0};
        for (int k = 0; k < dim; k++) {
            Doubles below = load_half(box + k * 2 * FAN + j) - s->x[k];
            Doubles above = s->x[k] - load_half(box + (k * 2 + 1) * FAN + j);
            Doubles d = (Doubles)(((below > 0) & (Longs)below) | ((above > 0) & (Longs)above));
            square += d * d;
        }
        square *= 1 - 1e-14;
        memcpy(squares + j, &square, sizeof square);
    }
}

/* Find points below a node, whose children are leaves at level 0. */
static void visit(Search *s, int level, int64_t node) {
    int dim = s->tree->dim;
    int64_t squares[FAN];
    if (dim == 2) approach(2, s, s->first[level] + node, squares);
    else if (dim == 3) approach(3, s, s->first[level] + node, squares);
    else approach(dim, s, s->first[level] + node, squares);
    for (;;) {
        int nearest = 0;
        for (int c = 1; c < FAN; c++) nearest = squares[c] < squares[nearest] ? c : nearest;
        if (!(squares[nearest] <= bits_of(s->bound))) return;
        squares[nearest] = INT64_MAX;
        int64_t child = node * FAN + nearest;
        if (level > 0) visit(s, level - 1, child);
        else if (dim == 2) scan(2, s, child);
        else if (dim == 3) scan(3, s, child);
        else scan(dim, s, child);
    }
}

/* Indices of the k nearest points. */
static void find(Search *s, const float *x, int64_t k, int64_t *result) {
    const Tree *tree = s->tree;
    if (!is_finite(tree->dim, x)) {
        for (int64_t i = 0; i < k; i++) result[i] = i;
        return;
    }
    for (int c = 0; c < tree->dim; c++) s->x[c] = x[c];
    s->bound = DBL_MAX;
    s->tie = INT32_MAX;
    s->count = 0;
    s->limit = s->k;
    if (s->k > 0) visit(s, s->levels - 1, 0);
    if (s->k > 0) sort_nearest(s);
    for (int64_t i = 0; i < s->k; i++) result[i] = s->keys.index[i];
    for (int64_t i = s->k; i < k; i++) result[i] = tree->index[tree->finite + i - s->k];
}

typedef struct {
    const Tree *tree;
    const float *x;
    int64_t n, k;
    int64_t *result;
    _Atomic int64_t next;
    _Atomic int failed;
} Queries;

static void *find_blocks(void *argument) {
    Queries *q = argument;
    const Tree *tree = q->tree;
    Search s = {.tree = tree, .k = q->k < tree->finite ? q->k : tree->finite};
    s.levels = find_levels(parts(tree->finite, LEAF), s.first);
    int64_t room = limit_of(s.k) + LEAF;
    int64_t *values = malloc(2 * room * sizeof *values);
    int32_t *indices = malloc(2 * room * sizeof *indices);
    s.keys = (Keys){values, indices};
    s.spare = from(s.keys, room);
    int ready = values && indices;
    if (!ready) q->failed = 1;
    int64_t i;
    while (ready && (i = atomic_fetch_add(&q->next, BLOCK)) < q->n)
        for (int64_t end = i + BLOCK < q->n ? i + BLOCK : q->n; i < end; i++)
            find(&s, q->x + i * tree->dim, q->k, q->result + i * q->k);
    free(values);
    free(indices);
    return NULL;
}

/* The second entry point: indices [n, k] of the nearest points of x [n, dim]. Returns the same. */
int drift_nearest(const Tree *tree, const float *x, int64_t n, int64_t k, int64_t *result) {
    Queries q = {tree, x, n, k, result, 0, 0};
    int64_t blocks = parts(n, BLOCK);
    drift_threads(tree->threads, blocks, find_blocks, &q);
    return q.failed;
}
