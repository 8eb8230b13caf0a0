/* yaml - bytes to nodes with line and column, and back
 *
 * This file is #included; it has no header and keeps everything static.
 * It knows nothing of the program around it. The includer defines
 * _GNU_SOURCE, and YOOM() for another end than exit(1) when memory runs out;
 * it must not return.
 *
 * The text is copied into the document's arena; one tree of struct ynode is
 * made of its first document, later ones must only parse. Nodes point back to
 * the bytes they came from, so that ywrite() can copy what was not changed.
 *
 * Buffers: growing bytes, NUL-terminated once touched
 *	bufadd bufputs bufputc bufprintf buffree
 * Arena: everything of one load, freed whole
 *	yalloc ystrndup yprintf yarenafree
 * Reading
 *	yparse(d, text, len)      0, or -1 with d->err, d->eline, d->ecol
 *	yparsejson(d, text, len)  the same for one strict JSON value
 *	yfree(d)                  any zeroed, failed or good document
 *	yget(map, key)            value or NULL; ypath(n, "a.b.0") goes deeper
 *	ystr(n)                   text of a scalar: 0x10 gives "16", null NULL
 *	ykey(n)                   text of the key of a value in a map
 *	yequal(a, b)              same kinds, values and order
 * Changing; values are nodes of the same document, see ycopy for others
 *	ynewstr ynewint ynewfloat ynewbool ynewnull ynewseq ynewmap ycopy
 *	yset(d, "a.b.0", v)       creates maps on the way; NULL: not a map there
 *	yput(d, map, key, v)      the same for one key, which may hold dots
 *	yreplace(d, old, v)       v takes the place of old, which may be the root
 *	yappend yprepend ydel
 * Writing
 *	yjson(b, n, indent)       indent 0: no blanks at all
 *	yjsonstr(b, s, len)       one JSON string
 *	yyaml(b, n, indent)       block layout of a computed tree
 *	yyamlstr(b, s, len, indent)  one string as yyaml writes it
 *	ywrite(d, b)              the text after changes: what did not change is
 *	                          copied with its comments, the rest has two blanks
 *	                          a level and dashes in the column of their key
 *
 * Differences from YAML 1.2, on purpose: numbers as in goccy/go-yaml (0644 is
 * octal, 1_000 a number, 1e3 a string), explicit keys ("? "), aliases as keys
 * and %TAG are refused. Aliases are copies, and bounded like everything else:
 * depth, nodes and bytes have the limits below, time grows with the input. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define YMAXDEPTH   1000                /* levels of nesting */
#define YMAXTEXT    (32u << 20)         /* bytes of input */
#define YMAXNODES   250000              /* some 50 MB; aliases count as copies */
#define YMAXANCHORS 1000                /* found by a linear search */

#define YUNUSED __attribute__((unused))
#define YPRINTF(f, a) __attribute__((format(printf, f, a)))
#ifndef YOOM
#define YOOM() (fputs("out of memory\n", stderr), exit(1))
#endif

struct buf {
	char *s;
	size_t len, cap;
};

struct yblock {
	struct yblock *next;
	size_t used, cap;
	max_align_t data[];
};

struct yarena {
	struct yblock *head;
};

enum ykind  { Y_NULL, Y_BOOL, Y_INT, Y_FLOAT, Y_STR, Y_SEQ, Y_MAP };
enum ystyle { Y_PLAIN, Y_SINGLE, Y_DOUBLE, Y_LITERAL, Y_FOLDED, Y_BLOCK, Y_FLOW };

struct ynode {
	enum ykind kind;
	enum ystyle style;
	bool dirty;             /* it or something below is new or changed */
	bool fresh;             /* written from the tree, not from its source */
	bool alias;             /* a copy; the source says *name */
	bool merged;            /* came into its map by << */
	bool keep;              /* a block scalar with +: owns the empty lines below */
	bool merges;            /* a map with a << in the source */
	bool after;             /* stands for a block collection: a comment there was its last entry's */
	int line, col;          /* 1-based position of off, in bytes */
	const char *s;          /* decoded text; plain scalars as in the source */
	size_t len;
	const char *text;       /* text after conversion (ystr); null: NULL */
	long long i;            /* Y_INT (LLONG_MAX when beyond), Y_BOOL */
	double f;               /* Y_INT, Y_FLOAT */
	size_t off, end;        /* source bytes, without the last line end */
	size_t ind;             /* just after the ':' or '-' it belongs to */
	struct ynode *key;
	struct ynode *first, *last, *next, *parent;
	size_t n;
};

/* a piece of the source that ywrite() replaces by s; lines start a new line */
struct ysplice {
	size_t off, end, seq;
	bool cut, lines;
	char *s;
	size_t len;
};

struct ydoc {
	struct yarena a;
	const char *text;
	size_t len;
	struct ynode *root;
	char err[256];
	int eline, ecol;
	size_t docend;          /* where the first document ends */
	struct ynode *tail;     /* block scalar that lacks its line end */
	struct ysplice *cuts;   /* entries deleted so far, in the arena */
	size_t ncuts, capcuts;
};

/* ---- Buffers and arena ------------------------------------------------- */

static void
bufgrow(struct buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : 64;
	char *s;

	if (n < b->cap - b->len && b->s)
		return;
	if (n > SIZE_MAX / 4 || b->len > SIZE_MAX / 4)
		YOOM();
	while (cap <= b->len + n)
		cap *= 2;
	if (!(s = realloc(b->s, cap)))
		YOOM();
	b->s = s;
	b->cap = cap;
}

YUNUSED static void
bufadd(struct buf *b, const void *p, size_t n)
{
	bufgrow(b, n);
	if (n)
		memcpy(b->s + b->len, p, n);
	b->len += n;
	b->s[b->len] = '\0';
}

YUNUSED static void
bufputs(struct buf *b, const char *s)
{
	bufadd(b, s, strlen(s));
}

YUNUSED static void
bufputc(struct buf *b, int c)
{
	bufgrow(b, 1);
	b->s[b->len++] = (char)c;
	b->s[b->len] = '\0';
}

YUNUSED YPRINTF(2, 3) static void
bufprintf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	char *t;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&t, fmt, ap);
	va_end(ap);
	if (n < 0)
		YOOM();
	bufadd(b, t, (size_t)n);
	free(t);
}

YUNUSED static void
buffree(struct buf *b)
{
	free(b->s);
	memset(b, 0, sizeof *b);
}

static void
bufblanks(struct buf *b, int n)
{
	while (n-- > 0)
		bufputc(b, ' ');
}

/* Blocks kept for the next arena, all zero: a thousand documents, one after the
 * other, else cost a thousand times the page faults of one.  A sanitizer shall
 * see each end of a document. */
#ifdef __SANITIZE_ADDRESS__
enum { ysparemax = 0 };
#else
enum { ysparemax = 64 * 1024 };
#endif
static struct yblock *yspare;
static size_t yspared;

YUNUSED static void *
yalloc(struct yarena *a, size_t n)
{
	struct yblock *h = a->head, *k, **p;
	size_t cap;

	if (n > SIZE_MAX / 4)
		YOOM();
	n = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (h && n <= h->cap - h->used) {
		h->used += n;
		return (char *)h->data + h->used - n;
	}
	cap = h ? h->cap * 2 : 4096;    /* small documents stay cheap */
	if (cap > 1u << 20)
		cap = 1u << 20;
	if (cap < n)
		cap = n;
	for (p = &yspare; (k = *p) && k->cap < cap; p = &k->next)
		;
	if (k) {
		*p = k->next;
		yspared -= cap = k->cap;
	} else if (!(k = calloc(1, sizeof *k + cap)))
		YOOM();
	k->cap = cap;
	k->used = n;
	if (h && h->cap - h->used > cap - n) {  /* keep the block with more room */
		k->next = h->next;
		h->next = k;
	} else {
		k->next = h;
		a->head = k;
	}
	return k->data;
}

YUNUSED static char *
ystrndup(struct yarena *a, const char *s, size_t n)
{
	char *p = yalloc(a, n + 1);

	if (n)
		memcpy(p, s, n);
	return p;
}

YUNUSED YPRINTF(2, 3) static char *
yprintf(struct yarena *a, const char *fmt, ...)
{
	va_list ap;
	char *t, *p;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&t, fmt, ap);
	va_end(ap);
	if (n < 0)
		YOOM();
	p = ystrndup(a, t, (size_t)n);
	free(t);
	return p;
}

YUNUSED static void
yarenafree(struct yarena *a)
{
	struct yblock *k;

	while ((k = a->head)) {
		a->head = k->next;
		if (k->cap > ysparemax - yspared) {
			free(k);
			continue;
		}
		memset(k->data, 0, k->used);
		k->next = yspare;
		yspare = k;
		yspared += k->cap;
	}
}

/* ---- Characters -------------------------------------------------------- */

static bool
yblank(int c)
{
	return c == ' ' || c == '\t';
}

static bool
yeol(int c)
{
	return c == '\n' || c == '\r' || c == '\0';
}

static bool
ysep(int c)
{
	return yblank(c) || yeol(c);
}

static bool
yflowchar(int c)
{
	return c && strchr(",[]{}", c);
}

static bool
ydigit(int c)
{
	return c >= '0' && c <= '9';
}

/* Length of the UTF-8 sequence at s, its code point in *u; 0 when invalid
 * (also overlong, surrogate, above U+10FFFF). */
static size_t
yutf8(const char *s, size_t n, uint32_t *u)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *p = (const unsigned char *)s;
	size_t k, i;

	if (!n)
		return 0;
	k = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 :
		(p[0] & 0xf8) == 0xf0 ? 4 : 0;
	if (!k || k > n)
		return 0;
	*u = k == 1 ? p[0] : p[0] & (0xffu >> (k + 1));
	for (i = 1; i < k; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*u = *u << 6 | (p[i] & 0x3f);
	}
	if (*u < least[k] || *u > 0x10ffff || (*u >= 0xd800 && *u < 0xe000))
		return 0;
	return k;
}

static void
ypututf8(struct buf *b, uint32_t u)
{
	if (u < 0x80) {
		bufputc(b, (int)u);
	} else if (u < 0x800) {
		bufputc(b, (int)(0xc0 | u >> 6));
		bufputc(b, (int)(0x80 | (u & 0x3f)));
	} else if (u < 0x10000) {
		bufputc(b, (int)(0xe0 | u >> 12));
		bufputc(b, (int)(0x80 | (u >> 6 & 0x3f)));
		bufputc(b, (int)(0x80 | (u & 0x3f)));
	} else {
		bufputc(b, (int)(0xf0 | u >> 18));
		bufputc(b, (int)(0x80 | (u >> 12 & 0x3f)));
		bufputc(b, (int)(0x80 | (u >> 6 & 0x3f)));
		bufputc(b, (int)(0x80 | (u & 0x3f)));
	}
}

static int
yhexdigit(int c)
{
	return ydigit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
		c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ---- Types of plain text ----------------------------------------------- */

static bool
yword(const char *s, const char *words)
{
	size_t n = strlen(s);
	const char *p;

	for (p = words; (p = strstr(p, s)); p += n)
		if (n && (p == words || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

/* digits of one base, no sign; -1 when there are others or they do not fit */
static int
ydigits(const char *s, unsigned base, uint64_t *out)
{
	uint64_t v = 0;
	int d;

	if (!*s)
		return -1;
	for (; *s; s++) {
		d = yhexdigit((unsigned char)*s);
		if (d < 0 || (unsigned)d >= base || v > (UINT64_MAX - (unsigned)d) / base)
			return -1;
		v = v * base + (unsigned)d;
	}
	*out = v;
	return 0;
}

/* [digits].[digits][e[sign]digits]: strtod alone takes hex, inf and blanks */
static bool
yisfloat(const char *s)
{
	size_t n = 0;

	for (; ydigit((unsigned char)*s); s++)
		n++;
	if (*s == '.')
		s++;
	for (; ydigit((unsigned char)*s); s++)
		n++;
	if (!n)
		return false;
	if (*s == 'e' || *s == 'E') {
		s++;
		if (*s == '+' || *s == '-')
			s++;
		if (!ydigit((unsigned char)*s))
			return false;
		while (ydigit((unsigned char)*s))
			s++;
	}
	return !*s;
}

/* Shortest decimal that reads back as f; like Go, an exponent only where the
 * number gets long. out holds 400 bytes. */
static void
yfloattext(double f, char *out)
{
	int prec;
	double a = fabs(f);

	if (isnan(f)) {
		memcpy(out, "NaN", 4);
		return;
	}
	if (isinf(f)) {
		memcpy(out, f > 0 ? "+Inf" : "-Inf", 5);
		return;
	}
	for (prec = 0; prec < 17; prec++) {
		snprintf(out, 400, "%.*e", prec, f);
		if (strtod(out, NULL) == f)
			break;
	}
	if (a != 0 && (a < 1e-6 || a >= 1e21)) {
		if (prec == 17)
			snprintf(out, 400, "%.16e", f);
		return;
	}
	/* digits after the point: those of the mantissa less the exponent */
	prec -= (int)strtol(strchr(out, 'e') + 1, NULL, 10);
	snprintf(out, 400, "%.*f", prec > 0 ? prec : 0, f);
}

/* Integer and float of the plain text s (NUL-terminated, short): fills kind,
 * i, f and text, or says false. */
static bool
ynumber(struct yarena *a, struct ynode *n)
{
	char t[128], out[400];
	const char *s = n->s, *p;
	unsigned base = 10;
	bool neg;
	uint64_t v;
	size_t k = 0;
	int dots = 0;

	if (n->len >= sizeof t || !n->len || *s == '_')
		return false;
	if (!ydigit((unsigned char)s[0]) && !strchr("+-.", s[0]))
		return false;
	neg = *s == '-';
	for (p = s + (*s == '-' || *s == '+'); *p; p++) {
		if (*p == '_')
			continue;
		dots += *p == '.';
		t[k++] = *p;
	}
	t[k] = '\0';
	p = t;
	if (dots == 1 && yisfloat(t)) {
		n->f = strtod(t, NULL);
		if (isinf(n->f))
			return false;
		if (neg)
			n->f = -n->f;
		n->kind = Y_FLOAT;
		yfloattext(n->f, out);
		n->text = ystrndup(a, out, strlen(out));
		return true;
	}
	if (dots)
		return false;
	if (*p == '0' && p[1]) {
		base = p[1] == 'x' ? 16 : p[1] == 'b' ? 2 : 8;
		p += p[1] == 'x' || p[1] == 'b' || p[1] == 'o' ? 2 : 1;
	}
	if (ydigits(p, base, &v) < 0 || (neg && v > (uint64_t)LLONG_MAX + 1))
		return false;
	n->kind = Y_INT;
	n->i = v > LLONG_MAX ? neg ? LLONG_MIN : LLONG_MAX : neg ? -(long long)v : (long long)v;
	n->f = neg ? -(double)v : (double)v;
	n->text = yprintf(a, "%s%llu", neg && v ? "-" : "", (unsigned long long)v);
	return true;
}

/* the kind of a plain scalar, config.md calls it typing */
static void
yresolve(struct yarena *a, struct ynode *n)
{
	const char *s = n->s;

	n->kind = Y_STR;
	n->text = s;
	if (memchr(s, 0, n->len))
		return;
	if (!n->len || yword(s, "null Null NULL ~")) {
		n->kind = Y_NULL;
		n->text = NULL;
	} else if (yword(s, "true True TRUE false False FALSE")) {
		n->kind = Y_BOOL;
		n->i = *s == 't' || *s == 'T';
		n->text = n->i ? "true" : "false";
	} else if (yword(s, ".inf .Inf .INF -.inf -.Inf -.INF")) {
		n->kind = Y_FLOAT;
		n->f = *s == '-' ? -HUGE_VAL : HUGE_VAL;
		n->text = *s == '-' ? "-Inf" : "+Inf";
	} else if (yword(s, ".nan .NaN .NAN")) {
		n->kind = Y_FLOAT;
		n->f = (double)NAN;
		n->text = "NaN";
	} else {
		(void)ynumber(a, n);
	}
}

/* ---- Parser: state and errors ------------------------------------------ */

struct yanchor {
	struct yanchor *next;
	const char *name;
	size_t len;
	struct ynode *n;
};

struct yprops {
	size_t off, ls;
	int line;
	const char *anchor, *tag;
	size_t alen, tlen;
	bool any;
};

/* what a look ahead must put back */
struct ymark {
	size_t pos, ls;
	int line;
};

struct yparser {
	struct ydoc *d;
	const char *t;          /* NUL-terminated, and no other NUL inside */
	size_t start;           /* after the byte order mark */
	struct ymark m;         /* where we are; ls: start of this line */
	long col;               /* of the next token on a later line; -1: none */
	int depth;
	size_t nnodes;
	struct buf b;           /* scalar being decoded */
	struct yanchor *anchors;
	size_t nanchors;
	jmp_buf env;
};

enum yctx { YINDOC, YONMARK, YINMAP, YINSEQ };

static struct ynode *yblocknode(struct yparser *p, long n, enum yctx ctx);
static struct ynode *yflownode(struct yparser *p);

/* A reason and a place, then back to yrun(). The arena owns what was built. */
_Noreturn YPRINTF(3, 4) static void
yfail(struct yparser *p, size_t off, const char *fmt, ...)
{
	struct ydoc *d = p->d;
	size_t i, ls = p->start;
	va_list ap;

	d->eline = 1;
	for (i = p->start; i < off; i++) {
		if (p->t[i] != '\n' && (p->t[i] != '\r' || p->t[i + 1] == '\n'))
			continue;
		d->eline++;
		ls = i + 1;
	}
	d->ecol = (int)(off - ls + 1);
	va_start(ap, fmt);
	vsnprintf(d->err, sizeof d->err, fmt, ap);
	va_end(ap);
	longjmp(p->env, 1);
}

/* the character at the place, as the messages name it */
static const char *
yshow(struct yparser *p)
{
	uint32_t u;
	size_t k = yutf8(p->t + p->m.pos, p->d->len - p->m.pos, &u);

	if (!k)
		return "end of text";
	if (p->t[p->m.pos] == '\t')
		return "'\\t'";
	return yprintf(&p->d->a, "'%.*s'", (int)k, p->t + p->m.pos);
}

/* s cut to a length fit for a message */
static const char *
ycut(struct yparser *p, const char *s, size_t n)
{
	if (n > 60) {
		for (n = 60; n && (s[n] & 0xc0) == 0x80; n--)
			;
		return yprintf(&p->d->a, "%.*s...", (int)n, s);
	}
	return ystrndup(&p->d->a, s, n);
}

static int
ycur(const struct yparser *p)
{
	return (unsigned char)p->t[p->m.pos];
}

static int
ypeek(const struct yparser *p)
{
	return p->t[p->m.pos] ? (unsigned char)p->t[p->m.pos + 1] : 0;
}

static struct ynode *
ynode(struct yparser *p, enum ykind kind, enum ystyle style)
{
	struct ynode *n;

	if (++p->nnodes > YMAXNODES)
		yfail(p, p->m.pos, "too many nodes");
	n = yalloc(&p->d->a, sizeof *n);
	n->kind = kind;
	n->style = style;
	n->off = n->end = n->ind = p->m.pos;
	n->line = p->m.line;
	n->col = (int)(p->m.pos - p->m.ls) + 1;
	n->s = n->text = kind == Y_STR ? "" : NULL;
	return n;
}

static void
ylink(struct ynode *to, struct ynode *n)
{
	n->parent = to;
	n->next = NULL;
	if (to->last)
		to->last->next = n;
	else
		to->first = n;
	to->last = n;
	to->n++;
}

static void
yenter(struct yparser *p)
{
	if (++p->depth > YMAXDEPTH)
		yfail(p, p->m.pos, "nested too deeply");
}

/* ---- Parser: lines ----------------------------------------------------- */

static void
yeatnl(struct yparser *p)
{
	if (ycur(p) == '\r' && ypeek(p) == '\n')
		p->m.pos++;
	p->m.pos++;
	p->m.line++;
	p->m.ls = p->m.pos;
}

static void
yeatblanks(struct yparser *p)
{
	while (yblank(ycur(p)))
		p->m.pos++;
}

static void
yeatline(struct yparser *p)
{
	while (!yeol(ycur(p)))
		p->m.pos++;
}

/* --- or ... at the start of a line */
static bool
yatmarker(const struct yparser *p)
{
	const char *s = p->t + p->m.pos;

	return p->m.pos == p->m.ls && (!strncmp(s, "---", 3) || !strncmp(s, "...", 3)) &&
		ysep((unsigned char)s[3]);
}

/* From the end of a line, or the start of one, to the next token: past empty
 * lines and comments. Its column goes to p->col, -1 at the document's end. */
static void
ynextline(struct yparser *p)
{
	size_t tab;

	p->col = -1;
	for (;;) {
		if (yeol(ycur(p)) && p->m.pos != p->m.ls) {
			if (!ycur(p))
				return;
			yeatnl(p);
		}
		if (yatmarker(p))
			return;
		while (ycur(p) == ' ')
			p->m.pos++;
		tab = p->m.pos;
		yeatblanks(p);
		if (ycur(p) == '#')
			yeatline(p);
		if (!ycur(p))
			return;
		if (yeol(ycur(p))) {
			yeatnl(p);
			continue;
		}
		if (tab != p->m.pos)
			yfail(p, tab, "found character '\\t' that cannot start any token");
		p->col = (long)(p->m.pos - p->m.ls);
		return;
	}
}

/* after a value: nothing but blanks and a comment may follow on its line */
static void
ylineend(struct yparser *p)
{
	size_t was = p->m.pos;
	int c = was > p->start ? p->t[was - 1] : 0;

	yeatblanks(p);
	if (ycur(p) == '#' && (p->m.pos > was || c == '"' || c == '\''))
		yeatline(p);
	if (ycur(p) == ':' && ysep(ypeek(p)))
		yfail(p, p->m.pos, "mapping value is not allowed in this context");
	if (!yeol(ycur(p)))
		yfail(p, p->m.pos, "unexpected %s after the value", yshow(p));
}

static bool
yatdash(const struct yparser *p)
{
	return ycur(p) == '-' && ysep(ypeek(p));
}

/* blanks, comments and line ends inside [ ] and { } */
static void
yflowskip(struct yparser *p)
{
	for (;;) {
		yeatblanks(p);
		if (ycur(p) == '#' && (p->m.pos == p->m.ls || ysep((unsigned char)p->t[p->m.pos - 1])))
			yeatline(p);
		if (!ycur(p) || !yeol(ycur(p)))
			return;
		yeatnl(p);
		if (yatmarker(p))
			yfail(p, p->m.pos, "document marker inside a flow collection");
	}
}

/* ---- Parser: scalars --------------------------------------------------- */

static void
ysettext(struct yparser *p, struct ynode *n, const char *s, size_t len)
{
	n->s = n->text = ystrndup(&p->d->a, s, len);
	n->len = len;
	n->end = p->m.pos;
}

static void
yputfold(struct yparser *p, size_t breaks)
{
	if (breaks == 1)
		bufputc(&p->b, ' ');
	while (breaks-- > 1)
		bufputc(&p->b, '\n');
}

/* A line end inside quotes: blanks around it go; returns the line ends seen. */
static size_t
yquotedbreak(struct yparser *p, size_t start)
{
	size_t breaks = 0;

	while (ycur(p) && yeol(ycur(p))) {
		yeatnl(p);
		breaks++;
		if (yatmarker(p))
			yfail(p, start, "document marker inside quoted text");
		yeatblanks(p);
	}
	return breaks;
}

static uint32_t
yhex(struct yparser *p, int digits)
{
	size_t at = p->m.pos;
	uint32_t u = 0;
	int d;

	while (digits-- > 0) {
		if ((d = yhexdigit(ycur(p))) < 0)
			yfail(p, at, "bad hexadecimal digit in an escape");
		u = u << 4 | (uint32_t)d;
		p->m.pos++;
	}
	return u;
}

/* The code point after \u, its second half too. JSON has U+FFFD for a lone
 * half, like Go; YAML text with one is refused. */
static void
yuescape(struct yparser *p, int digits, bool json)
{
	size_t at = p->m.pos;
	struct ymark m;
	uint32_t u = yhex(p, digits), v;

	if (digits == 4 && u >= 0xd800 && u < 0xdc00 && ycur(p) == '\\' && ypeek(p) == 'u') {
		m = p->m;
		p->m.pos += 2;
		v = yhex(p, 4);
		if (v >= 0xdc00 && v < 0xe000)
			u = 0x10000 + ((u - 0xd800) << 10) + (v - 0xdc00);
		else
			p->m = m;
	}
	if ((u >= 0xd800 && u < 0xe000) || u > 0x10ffff) {
		if (!json)
			yfail(p, at, "escape is not a character");
		u = 0xfffd;
	}
	ypututf8(&p->b, u);
}

/* c-ns-esc-char: after the backslash, not at a line end */
static void
yescape(struct yparser *p)
{
	static const char from[] = "0abtnvfre\"/\\ \tN_LP";
	static const uint32_t to[] = { 0, 7, 8, 9, 10, 11, 12, 13, 27, '"', '/', '\\', ' ', '\t',
		0x85, 0xa0, 0x2028, 0x2029 };
	int c = ycur(p);
	const char *q = c ? strchr(from, c) : NULL;

	if (q) {
		p->m.pos++;
		ypututf8(&p->b, to[q - from]);
	} else if (c == 'x' || c == 'u' || c == 'U') {
		p->m.pos++;
		yuescape(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, false);
	} else {
		yfail(p, p->m.pos - 1, "unknown escape character %s", yshow(p));
	}
}

/* c-double-quoted */
static struct ynode *
ydouble(struct yparser *p)
{
	struct ynode *n = ynode(p, Y_STR, Y_DOUBLE);
	size_t keep = 0, k;     /* length that folding may not trim */

	p->b.len = 0;
	for (p->m.pos++; ycur(p) != '"'; ) {
		if (!ycur(p))
			yfail(p, n->off, "could not find end character of double-quoted text");
		if (yeol(ycur(p))) {
			p->b.len = keep;
			yputfold(p, yquotedbreak(p, n->off));
		} else if (ycur(p) == '\\') {
			p->m.pos++;
			if (ycur(p) && yeol(ycur(p))) {
				for (k = yquotedbreak(p, n->off); k > 1; k--)
					bufputc(&p->b, '\n');
			} else {
				yescape(p);
			}
		} else {
			bufputc(&p->b, ycur(p));
			p->m.pos++;
			if (yblank((unsigned char)p->b.s[p->b.len - 1]))
				continue;
		}
		keep = p->b.len;
	}
	p->m.pos++;
	ysettext(p, n, p->b.s, p->b.len);
	return n;
}

/* c-single-quoted */
static struct ynode *
ysingle(struct yparser *p)
{
	struct ynode *n = ynode(p, Y_STR, Y_SINGLE);

	p->b.len = 0;
	for (p->m.pos++; ycur(p) != '\'' || ypeek(p) == '\''; ) {
		if (!ycur(p))
			yfail(p, n->off, "could not find end character of single-quoted text");
		if (yeol(ycur(p))) {
			while (p->b.len && yblank((unsigned char)p->b.s[p->b.len - 1]))
				p->b.len--;
			yputfold(p, yquotedbreak(p, n->off));
		} else {
			if (ycur(p) == '\'')
				p->m.pos++;
			bufputc(&p->b, ycur(p));
			p->m.pos++;
		}
	}
	p->m.pos++;
	ysettext(p, n, p->b.s, p->b.len);
	return n;
}

/* ns-plain-first */
static void
yplainfirst(struct yparser *p, bool flow)
{
	int c = ycur(p), e = ypeek(p);

	if (c == '-' && (ysep(e) || (flow && yflowchar(e))))
		yfail(p, p->m.pos, "block sequence entries are not allowed in this context");
	if (c == '?' && (ysep(e) || (flow && yflowchar(e))))
		yfail(p, p->m.pos, "explicit keys (\"? \") are not supported");
	if (c == ':' && (ysep(e) || (flow && yflowchar(e))))
		yfail(p, p->m.pos, "found an invalid key for this map");
	if (strchr("@`%#&*!|>'\"", c))
		yfail(p, p->m.pos, "found character %s that cannot start any token", yshow(p));
	if (yflowchar(c))
		yfail(p, p->m.pos, "unexpected %s", yshow(p));
	if (!strncmp(p->t + p->m.pos, "\xef\xbb\xbf", 3))
		yfail(p, p->m.pos, "byte order mark inside the text");
}

/* End of the part of a plain scalar that stands on this line. */
static size_t
yplainline(struct yparser *p, bool flow)
{
	size_t end = p->m.pos;
	int c;

	for (; !yeol(c = ycur(p)); p->m.pos++) {
		if (c == ':' && (ysep(ypeek(p)) || (flow && yflowchar(ypeek(p)))))
			break;
		if (c == '#' && end < p->m.pos)
			break;
		if (flow && yflowchar(c))
			break;
		if (!yblank(c))
			end = p->m.pos + 1;
	}
	return end;
}

/* Does the plain scalar go on below? Then we stand there; else nowhere new.
 * The number of line ends passed, or 0. */
static size_t
yplaingoeson(struct yparser *p, long n, bool flow)
{
	struct ymark m = p->m;
	size_t breaks = 0, spaces;
	int c;

	while (ycur(p) && yeol(ycur(p))) {
		yeatnl(p);
		breaks++;
		if (yatmarker(p))
			break;
		for (spaces = 0; ycur(p) == ' '; p->m.pos++)
			spaces++;
		yeatblanks(p);
		c = ycur(p);
		if (yeol(c))
			continue;
		if (c == '#' || (!flow && (long)spaces <= n))
			break;
		if (flow && (yflowchar(c) || (c == ':' && (ysep(ypeek(p)) || yflowchar(ypeek(p))))))
			break;
		return breaks;
	}
	p->m = m;
	return 0;
}

/* ns-plain: n is the parent's indent; a key ends with its line */
static struct ynode *
yplain(struct yparser *p, long n, bool flow, bool key)
{
	struct ynode *node = ynode(p, Y_STR, Y_PLAIN);
	size_t from = p->m.pos, end, breaks;

	yplainfirst(p, flow);
	end = yplainline(p, flow);
	p->b.len = 0;
	bufadd(&p->b, p->t + from, end - from);
	while (!key && yeol(ycur(p)) && (breaks = yplaingoeson(p, n, flow))) {
		yputfold(p, breaks);
		from = p->m.pos;
		end = yplainline(p, flow);
		bufadd(&p->b, p->t + from, end - from);
	}
	p->m.pos = end;         /* lineend wants to see the blank before a # */
	ysettext(p, node, p->b.s, p->b.len);
	return node;
}

/* c-b-block-header: style, chomping and indent (0: find out) */
static void
yblockheader(struct yparser *p, int *chomp, int *indent)
{
	int c;

	*chomp = *indent = 0;
	for (p->m.pos++; (c = ycur(p)) && !ysep(c); p->m.pos++) {
		if ((c == '-' || c == '+') && !*chomp)
			*chomp = c;
		else if (c >= '1' && c <= '9' && !*indent)
			*indent = c - '0';
		else
			yfail(p, p->m.pos, "bad block scalar header: unexpected %s", yshow(p));
	}
	yeatblanks(p);
	if (ycur(p) == '#')
		yeatline(p);
	if (!yeol(ycur(p)))
		yfail(p, p->m.pos, "bad block scalar header: unexpected %s", yshow(p));
}

/* Joins a content line to the text so far: empty lines came before it. */
static void
yblockjoin(struct yparser *p, bool folded, bool first, bool more, size_t empty)
{
	size_t k = first ? empty : empty + 1;

	if (folded && !first && !more) {
		yputfold(p, empty + 1);
		return;
	}
	while (k--)
		bufputc(&p->b, '\n');
}

/* Blanks at the head of this line, but no more than the indent when known. */
static size_t
yindentof(const struct yparser *p, size_t need)
{
	size_t k = 0;

	while ((!need || k < need) && p->t[p->m.pos + k] == ' ')
		k++;
	return k;
}

/* c-l+literal, c-l+folded: n is the parent's indent */
static struct ynode *
yblockscalar(struct yparser *p, long n)
{
	bool folded = ycur(p) == '>', first = true, known, more, was = false;
	bool cut = false, open = false;         /* the text ends before the line does */
	struct ynode *node = ynode(p, Y_STR, folded ? Y_FOLDED : Y_LITERAL);
	size_t need, widest = 0, k, empty = 0, from;
	struct ymark last;
	int chomp, indent;

	yblockheader(p, &chomp, &indent);
	known = indent != 0;
	need = indent ? (size_t)((n < 0 ? 0 : n) + indent) : 0;
	last = p->m;
	p->b.len = 0;
	while (ycur(p)) {
		yeatnl(p);
		if (yatmarker(p))
			break;
		k = known && !need ? 0 : yindentof(p, need);
		p->m.pos += k;
		if (yeol(ycur(p))) {
			if (!ycur(p)) {
				open = chomp == '+' && k;
				break;
			}
			if (k > widest)
				widest = k;
			empty++;
			if (chomp == '+')
				last = p->m;
			continue;
		}
		if (!known) {
			if ((long)k <= n)
				break;
			if (widest > k)
				yfail(p, p->m.pos, "an empty line above has more blanks than the first line of text");
			need = k;
			known = true;
		}
		if (k < need)
			break;
		more = yblank(ycur(p));
		yblockjoin(p, folded, first, more || was, empty);
		from = p->m.pos;
		yeatline(p);
		bufadd(&p->b, p->t + from, p->m.pos - from);
		first = false;
		was = more;
		empty = 0;
		last = p->m;
		cut = !ycur(p);
	}
	p->d->tail = open || (cut && chomp != '-') ? node : NULL;
	if (chomp != '-' && !first && !cut)
		bufputc(&p->b, '\n');
	for (; chomp == '+' && empty; empty--)
		bufputc(&p->b, '\n');
	p->m = last;
	node->keep = chomp == '+';
	ysettext(p, node, p->b.s, p->b.len);
	ynextline(p);
	if (p->col > n)
		yfail(p, p->m.pos, "block scalar line is less indented than its first line");
	return node;
}

/* ---- Parser: properties, aliases, merge keys --------------------------- */

/* c-ns-properties: one of &name and !tag at a time */
static void
yprop(struct yparser *p, struct yprops *pr, bool flow)
{
	size_t from = p->m.pos;
	bool anchor = ycur(p) == '&';

	if (anchor ? pr->anchor != NULL : pr->tag != NULL)
		yfail(p, from, "a node has only one %s", anchor ? "anchor" : "tag");
	if (!pr->any) {
		pr->off = from;
		pr->ls = p->m.ls;
		pr->line = p->m.line;
		pr->any = true;
	}
	while (!ysep(ycur(p)) && !(flow && yflowchar(ycur(p))))
		p->m.pos++;
	if (anchor) {
		pr->anchor = p->t + from + 1;
		pr->alen = p->m.pos - from - 1;
		if (!pr->alen)
			yfail(p, from, "anchor without a name");
	} else {
		pr->tag = p->t + from;
		pr->tlen = p->m.pos - from;
	}
}

/* RFC 4648, blanks and line ends ignored; -1 when it is not that */
static int
yunbase64(struct buf *b, const char *s, size_t n)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t v = 0;
	size_t i, k = 0, pad = 0;
	const char *q;

	b->len = 0;
	for (i = 0; i < n; i++) {
		if (yblank((unsigned char)s[i]) || s[i] == '\n' || s[i] == '\r')
			continue;
		if (s[i] == '=') {
			pad++;
			continue;
		}
		if (pad || !s[i] || !(q = strchr(set, s[i])))
			return -1;
		v = v << 6 | (uint32_t)(q - set);
		if (++k % 4 == 0) {
			bufputc(b, (int)(v >> 16 & 0xff));
			bufputc(b, (int)(v >> 8 & 0xff));
			bufputc(b, (int)(v & 0xff));
		}
	}
	if ((k + pad) % 4 || k % 4 == 1 || pad > 2)
		return -1;
	if (k % 4 == 2)
		bufputc(b, (int)(v >> 4 & 0xff));
	if (k % 4 == 3) {
		bufputc(b, (int)(v >> 10 & 0xff));
		bufputc(b, (int)(v >> 2 & 0xff));
	}
	return 0;
}

/* What a tag does to its node; one exclamation mark: an unknown one, ignored. */
static void
ytag(struct yparser *p, struct ynode *n, const struct yprops *pr)
{
	static const struct {
		const char *name;
		enum ykind kind;
	} tags[] = {
		{ "!!null", Y_NULL }, { "!!bool", Y_BOOL }, { "!!int", Y_INT },
		{ "!!float", Y_FLOAT }, { "!!str", Y_STR }, { "!!binary", Y_STR },
		{ "!!seq", Y_SEQ }, { "!!map", Y_MAP },
	};
	size_t i, off = (size_t)(pr->tag - p->t);

	if (pr->tlen < 2 || pr->tag[1] != '!') {
		if (n->kind == Y_STR && n->style == Y_PLAIN)
			yresolve(&p->d->a, n);
		return;
	}
	for (i = 0; i < sizeof tags / sizeof *tags; i++)
		if (strlen(tags[i].name) == pr->tlen && !memcmp(tags[i].name, pr->tag, pr->tlen))
			break;
	if (i == sizeof tags / sizeof *tags)
		yfail(p, off, "unknown tag %s", ycut(p, pr->tag, pr->tlen));
	/* also quoted text is read as if it were plain */
	if (n->kind == Y_STR && tags[i].kind != Y_STR)
		yresolve(&p->d->a, n);
	if (n->kind == Y_INT && tags[i].kind == Y_FLOAT)
		n->kind = Y_FLOAT;
	if (n->kind != tags[i].kind)
		yfail(p, off, "the value does not fit its tag");
	if (!strcmp(tags[i].name, "!!binary")) {
		if (yunbase64(&p->b, n->s, n->len) < 0)
			yfail(p, off, "illegal base64 data");
		n->s = n->text = ystrndup(&p->d->a, p->b.s ? p->b.s : "", p->b.len);
		n->len = p->b.len;
	}
}

/* Gives a finished node its type, tag and name. */
static struct ynode *
yfinish(struct yparser *p, struct ynode *n, const struct yprops *pr)
{
	struct yanchor *a;

	if (n->alias && pr->any)
		yfail(p, pr->off, "an alias takes neither anchor nor tag");
	if (n->alias)
		return n;
	if (pr->tag)
		ytag(p, n, pr);
	else if (n->kind == Y_STR && n->style == Y_PLAIN)
		yresolve(&p->d->a, n);
	if (pr->any) {
		n->off = pr->off;
		n->line = pr->line;
		n->col = (int)(pr->off - pr->ls) + 1;
	}
	if (pr->anchor) {
		if (++p->nanchors > YMAXANCHORS)
			yfail(p, pr->off, "too many anchors");
		a = yalloc(&p->d->a, sizeof *a);
		a->name = pr->anchor;
		a->len = pr->alen;
		a->n = n;
		a->next = p->anchors;
		p->anchors = a;
	}
	return n;
}

/* A copy counts as much as the original, and may not nest deeper either: this
 * is what stops the bombs. */
static struct ynode *
ycopynode(struct yparser *p, const struct ynode *from)
{
	struct ynode *n = ynode(p, from->kind, from->style), *k, *c;

	yenter(p);
	n->s = from->s;
	n->len = from->len;
	n->text = from->text;
	n->i = from->i;
	n->f = from->f;
	n->fresh = n->alias = true;
	for (k = from->first; k; k = k->next) {
		c = ycopynode(p, k);
		if (k->key)
			c->key = ycopynode(p, k->key);
		ylink(n, c);
	}
	p->depth--;
	return n;
}

/* c-ns-alias-node */
static struct ynode *
yalias(struct yparser *p, bool flow)
{
	struct ymark m = p->m;
	const struct yanchor *a;
	struct ynode *n;
	const char *name;
	size_t len;

	for (p->m.pos++; !ysep(ycur(p)) && !(flow && yflowchar(ycur(p))); )
		p->m.pos++;
	name = p->t + m.pos + 1;
	len = p->m.pos - m.pos - 1;
	for (a = p->anchors; a; a = a->next)
		if (a->len == len && !memcmp(a->name, name, len))
			break;
	if (!a)
		yfail(p, m.pos, "could not find alias \"%s\"", ycut(p, name, len));
	n = ycopynode(p, a->n);
	n->off = m.pos;
	n->end = p->m.pos;
	n->line = m.line;
	n->col = (int)(m.pos - m.ls) + 1;
	return n;
}

/* the text of a key: null is the empty string */
static const char *
ykeytext(const struct ynode *key)
{
	return key->text ? key->text : "";
}

static size_t
ykeylen(const struct ynode *key)
{
	return key->kind == Y_STR ? key->len : strlen(ykeytext(key));
}

static int
ykeycmp(const struct ynode *a, const struct ynode *b)
{
	size_t m = ykeylen(a), n = ykeylen(b);
	int r = memcmp(ykeytext(a), ykeytext(b), m < n ? m : n);

	return r ? r : m < n ? -1 : m > n;
}

struct yent {
	struct ynode *v;
	size_t i;
};

/* by key; explicit entries before merged ones, then in order */
static int
yentcmp(const void *x, const void *y)
{
	const struct yent *a = x, *b = y;
	int r = ykeycmp(a->v->key, b->v->key);

	if (!r)
		r = a->v->merged - b->v->merged;
	return r ? r : a->i < b->i ? -1 : a->i > b->i;
}

/* Two equal keys are an error at the second of them. What came by << may not
 * be given explicitly too; given twice by <<, the first counts, and the others
 * lose their key here to be dropped by the caller. */
static void
ynodups(struct yparser *p, struct ynode *map)
{
	struct yent *e;
	struct ynode *v, *was, *first = NULL, *bad = NULL;
	const struct ynode *key;
	size_t i = 0;

	if (map->n < 2)
		return;
	if (!(e = malloc(map->n * sizeof *e)))
		YOOM();
	for (v = map->first; v; v = v->next, i++) {
		e[i].v = v;
		e[i].i = i;
	}
	qsort(e, map->n, sizeof *e, yentcmp);
	for (was = e[0].v, key = was->key, i = 1; i < map->n; i++) {
		v = e[i].v;
		if (ykeycmp(key, v->key)) {
			was = v;
			key = v->key;
		} else if (v->merged && was->merged) {
			v->key = NULL;
		} else if (!bad || v->key->off < bad->key->off) {
			bad = v;
			first = was;
		}
	}
	free(e);
	if (bad && bad->merged)
		yfail(p, first->key->off, "duplicate key \"%s\"",
			ycut(p, ykeytext(first->key), ykeylen(first->key)));
	if (bad)
		yfail(p, bad->key->off, "mapping key \"%s\" already defined at [%d:%d]",
			ycut(p, ykeytext(bad->key), ykeylen(bad->key)),
			first->key->line, first->key->col);
}

/* the entries of one map named by << */
static void
ymergeone(struct yparser *p, struct ynode *map, struct ynode *from)
{
	struct ynode *v, *next;

	if (from->kind != Y_MAP)
		yfail(p, from->off, "map was expected after <<");
	for (v = from->first; v; v = next) {
		next = v->next;
		v->merged = v->fresh = v->alias = true;
		ylink(map, v);
	}
}

static bool
yismerge(const struct ynode *v)
{
	return v->key->style == Y_PLAIN && v->key->kind == Y_STR && !strcmp(v->key->s, "<<");
}

/* The entries of a map once more, what << names in the place of each <<. */
static void
ymerge(struct yparser *p, struct ynode *map)
{
	struct ynode *v = map->first, *next, *k, *knext;

	map->first = map->last = NULL;
	map->n = 0;
	map->merges = true;
	for (; v; v = next) {
		next = v->next;
		if (!yismerge(v)) {
			ylink(map, v);
		} else if (v->kind != Y_SEQ) {
			ymergeone(p, map, v);
		} else {
			for (k = v->first; k; k = knext) {
				knext = k->next;
				ymergeone(p, map, k);
			}
		}
	}
}

/* the end of a map: no key twice, << resolved */
static void
ymapend(struct yparser *p, struct ynode *map)
{
	struct ynode *v, *next;

	ynodups(p, map);
	for (v = map->first; v && !yismerge(v); v = v->next)
		;
	if (!v)
		return;
	ymerge(p, map);
	ynodups(p, map);
	v = map->first;
	map->first = map->last = NULL;
	for (map->n = 0; v; v = next) {
		next = v->next;
		if (v->key)
			ylink(map, v);
	}
}

static void
yentry(struct ynode *map, struct ynode *key, struct ynode *v)
{
	v->key = key;
	ylink(map, v);
}

static bool
yiscoll(const struct ynode *n)
{
	return n->kind == Y_SEQ || n->kind == Y_MAP;
}

/* an empty node, which has no bytes */
static struct ynode *
yempty(struct yparser *p, struct ymark m)
{
	struct ynode *n = ynode(p, Y_STR, Y_PLAIN);

	n->off = n->end = n->ind = m.pos;
	n->line = m.line;
	n->col = (int)(m.pos - m.ls) + 1;
	return n;
}

/* ---- Parser: flow collections ------------------------------------------ */

/* ':' and value after a key; NULL when there is no ':' */
static struct ynode *
yflowvalue(struct yparser *p, const struct ynode *key, bool oneline)
{
	struct ymark m = p->m;
	struct ynode *v;
	bool near = key->style != Y_PLAIN;      /* "a":b needs no blank */
	size_t ind;

	yflowskip(p);
	if (ycur(p) != ':' || !(near || ysep(ypeek(p)) || yflowchar(ypeek(p)))) {
		p->m = m;
		return NULL;
	}
	if (yiscoll(key))
		yfail(p, key->off, "found an invalid key for this map");
	if (oneline && key->line != p->m.line)
		yfail(p, p->m.pos, "mapping value is not allowed in this context");
	ind = ++p->m.pos;
	v = yflownode(p);
	v->ind = ind;
	return v;
}

/* c-flow-mapping */
static void
yflowmap(struct yparser *p, struct ynode *map)
{
	struct yprops none = { 0 };
	struct ynode *key, *v;

	for (yflowskip(p); ycur(p) != '}'; yflowskip(p)) {
		if (ycur(p) == ',')
			yfail(p, p->m.pos, "unexpected ','");
		if (!ycur(p))
			yfail(p, map->off, "could not find flow map end character '}'");
		key = yflownode(p);
		if (yiscoll(key))
			yfail(p, key->off, "found an invalid key for this map");
		if (!(v = yflowvalue(p, key, false)))
			v = yfinish(p, yempty(p, p->m), &none);
		yentry(map, key, v);
		yflowskip(p);
		if (ycur(p) == ',')
			p->m.pos++;
		else if (!ycur(p))
			yfail(p, map->off, "could not find flow map end character '}'");
		else if (ycur(p) != '}')
			yfail(p, p->m.pos, "',' or '}' must be specified, found %s", yshow(p));
	}
	ymapend(p, map);
}

/* ns-flow-pair: a map of one entry; item was its key */
static struct ynode *
yflowpair(struct yparser *p, struct ynode *item)
{
	struct ynode *v = yflowvalue(p, item, true), *map;

	if (!v)
		return item;
	map = ynode(p, Y_MAP, Y_FLOW);
	map->off = map->ind = item->off;
	map->line = item->line;
	map->col = item->col;
	map->end = v->end;
	yentry(map, item, v);
	ymapend(p, map);
	return map;
}

/* c-flow-sequence */
static void
yflowseq(struct yparser *p, struct ynode *seq)
{
	for (yflowskip(p); ycur(p) != ']'; yflowskip(p)) {
		if (ycur(p) == ',')
			yfail(p, p->m.pos, "unexpected ','");
		if (!ycur(p))
			yfail(p, seq->off, "could not find flow sequence end character ']'");
		ylink(seq, yflowpair(p, yflownode(p)));
		yflowskip(p);
		if (ycur(p) == ',')
			p->m.pos++;
		else if (!ycur(p))
			yfail(p, seq->off, "could not find flow sequence end character ']'");
		else if (ycur(p) != ']')
			yfail(p, p->m.pos, "',' or ']' must be specified, found %s", yshow(p));
	}
}

/* [ or { to its end */
static struct ynode *
yflowcollection(struct yparser *p)
{
	bool map = ycur(p) == '{';
	struct ynode *n = ynode(p, map ? Y_MAP : Y_SEQ, Y_FLOW);

	yenter(p);
	p->m.pos++;
	if (map)
		yflowmap(p, n);
	else
		yflowseq(p, n);
	n->end = ++p->m.pos;
	p->depth--;
	return n;
}

/* ns-flow-node, or nothing before , ] } */
static struct ynode *
yflownode(struct yparser *p)
{
	struct yprops pr = { 0 };
	struct ymark m = p->m;
	struct ynode *n;
	int c;

	yflowskip(p);
	while (ycur(p) == '&' || ycur(p) == '!') {
		yprop(p, &pr, true);
		m = p->m;
		yflowskip(p);
	}
	c = ycur(p);
	if (c == '[' || c == '{') {
		n = yflowcollection(p);
	} else if (c == '"') {
		n = ydouble(p);
	} else if (c == '\'') {
		n = ysingle(p);
	} else if (c == '*') {
		n = yalias(p, true);
	} else if (!c || c == ',' || c == ']' || c == '}') {
		p->m = m;
		n = yempty(p, m);
	} else {
		n = yplain(p, -1, true, false);
	}
	return yfinish(p, n, &pr);
}

/* ---- Parser: block collections ----------------------------------------- */

/* the place after quoted text that ends on its line, or 0 */
static size_t
yquotedend(const char *t, size_t i)
{
	char q = t[i];

	for (i++; t[i] != q || (q == '\'' && t[i + 1] == q); i++) {
		if ((q == '\'' && t[i] == q) || (q == '"' && t[i] == '\\'))
			i++;
		if (yeol((unsigned char)t[i]))
			return 0;
	}
	return i + 1;
}

static size_t
yskipblanks(const char *t, size_t i)
{
	while (yblank((unsigned char)t[i]))
		i++;
	return i;
}

/* Does an implicit key start here, that is: does ':' follow the first scalar
 * of this line? */
static bool
yatkey(const struct yparser *p)
{
	const char *t = p->t;
	size_t i = p->m.pos, from;

	while (t[i] == '&' || t[i] == '!') {
		while (!ysep((unsigned char)t[i]))
			i++;
		i = yskipblanks(t, i);
	}
	if (t[i] == '"' || t[i] == '\'') {
		if (!(i = yquotedend(t, i)))
			return false;
		i = yskipblanks(t, i);
		return t[i] == ':' && ysep((unsigned char)t[i + 1]);
	}
	if (yflowchar((unsigned char)t[i]) || t[i] == '|' || t[i] == '>')
		return false;
	for (from = i; !yeol((unsigned char)t[i]); i++) {
		if (t[i] == ':' && ysep((unsigned char)t[i + 1]))
			return true;
		if (t[i] == '#' && i > from && yblank((unsigned char)t[i - 1]))
			return false;
	}
	return false;
}

/* ns-s-block-map-implicit-key with its ':' */
static struct ynode *
yblockkey(struct yparser *p)
{
	struct yprops pr = { 0 };
	struct ynode *key;

	if (yatdash(p))
		yfail(p, p->m.pos, "block sequence entries are not allowed in this context");
	if (ycur(p) == '?' && ysep(ypeek(p)))
		yfail(p, p->m.pos, "explicit keys (\"? \") are not supported");
	if (ycur(p) == '[' || ycur(p) == '{')
		yfail(p, p->m.pos, "found an invalid key for this map");
	while (ycur(p) == '&' || ycur(p) == '!') {
		yprop(p, &pr, false);
		yeatblanks(p);
	}
	if (ycur(p) == '*')
		yfail(p, p->m.pos, "aliases as keys are not supported");
	if (ycur(p) == '"')
		key = ydouble(p);
	else if (ycur(p) == '\'')
		key = ysingle(p);
	else
		key = yplain(p, 0, false, true);
	yeatblanks(p);
	if (ycur(p) != ':' || !ysep(ypeek(p)))
		yfail(p, key->off, "could not find expected ':' after the key");
	p->m.pos++;
	return yfinish(p, key, &pr);
}

/* l+block-mapping: we stand at its first key */
static struct ynode *
yblockmap(struct yparser *p)
{
	struct ynode *map = ynode(p, Y_MAP, Y_BLOCK), *key;
	long col = map->col - 1;

	do {
		key = yblockkey(p);
		yentry(map, key, yblocknode(p, col, YINMAP));
	} while (p->col == col);
	if (p->col > col)
		yfail(p, p->m.pos, "wrong indentation: the keys of this map start at column %ld", col + 1);
	map->end = map->last->end;
	ymapend(p, map);
	return map;
}

/* l+block-sequence */
static struct ynode *
yblockseq(struct yparser *p)
{
	struct ynode *seq = ynode(p, Y_SEQ, Y_BLOCK);
	long col = seq->col - 1;

	do {
		p->m.pos++;
		ylink(seq, yblocknode(p, col, YINSEQ));
	} while (p->col == col && yatdash(p));
	if (p->col > col)
		yfail(p, p->m.pos, "wrong indentation: the dashes of this list stand at column %ld", col + 1);
	seq->end = seq->last->end;
	return seq;
}

/* Content that is no block collection; n is the parent's indent. Leaves us at
 * the next token of a later line. */
static struct ynode *
yblockcontent(struct yparser *p, long n, bool blockok)
{
	struct ynode *node;
	struct ymark m;

	switch (ycur(p)) {
	case '|':
	case '>':
		return yblockscalar(p, n);
	case '"':
		node = ydouble(p);
		break;
	case '\'':
		node = ysingle(p);
		break;
	case '*':
		node = yalias(p, false);
		break;
	case '[':
	case '{':
		node = yflowcollection(p);
		m = p->m;
		yeatblanks(p);
		if (blockok && ycur(p) == ':' && ysep(ypeek(p)))
			yfail(p, node->off, "found an invalid key for this map");
		p->m = m;
		break;
	default:
		node = yplain(p, n, false, false);
	}
	ylineend(p);
	ynextline(p);
	return node;
}

/* s-l+block-node: what follows an indicator, or starts a document; n is the
 * parent's indent. On return we are at the next token of a later line, in
 * column p->col. Text on the line of a "key:", of a --- or of properties can
 * be no block collection: blockok. */
static struct ynode *
yblocknode(struct yparser *p, long n, enum yctx ctx)
{
	struct yprops pr = { 0 };
	struct ymark m = p->m;
	struct ynode *node;
	bool blockok = ctx == YINSEQ || ctx == YINDOC, empty = false;
	size_t ind = m.pos;

	yenter(p);
	for (;;) {
		yeatblanks(p);
		if (yeol(ycur(p)) || (ycur(p) == '#' && yblank((unsigned char)p->t[p->m.pos - 1]))) {
			yeatline(p);
			ynextline(p);
			empty = p->col <= n && !(p->col == n && ctx == YINMAP && yatdash(p));
			blockok = true;
		}
		if (empty || (ycur(p) != '&' && ycur(p) != '!') || (blockok && yatkey(p)))
			break;
		yprop(p, &pr, false);
		m = p->m;
		blockok = false;
	}
	if (empty)
		node = yempty(p, m);
	else if (blockok && yatdash(p))
		node = yblockseq(p);
	else if (blockok && yatkey(p))
		node = yblockmap(p);
	else
		node = yblockcontent(p, n, blockok);
	node->ind = ind;
	p->depth--;
	return yfinish(p, node, &pr);
}

/* ---- Parser: documents ------------------------------------------------- */

static bool
yatstart(const struct yparser *p)
{
	return yatmarker(p) && ycur(p) == '-';
}

/* l-directive: only %YAML */
static void
ydirectives(struct yparser *p)
{
	size_t at = p->m.pos;
	bool any = false;

	while (p->col == 0 && ycur(p) == '%') {
		if (any || strncmp(p->t + p->m.pos, "%YAML ", 6))
			yfail(p, p->m.pos, "found character '%%' that cannot start any token");
		any = true;
		yeatline(p);
		ynextline(p);
	}
	if (any && !yatstart(p))
		yfail(p, at, "expected '---' after a directive");
}

/* l-any-document with the ... that may end it. Leaves us at the end of the
 * text, or of a line, or at the next ---. NULL: there is none any more. */
static struct ynode *
ydocument(struct yparser *p, bool first)
{
	struct yprops none = { 0 };
	struct ynode *root;

	p->anchors = NULL;
	p->nanchors = 0;
	ynextline(p);
	ydirectives(p);
	if (yatstart(p)) {
		p->m.pos += 3;
		root = yblocknode(p, -1, YONMARK);
	} else if (p->col < 0) {
		if (!first && !ycur(p))
			return NULL;
		root = yfinish(p, yempty(p, p->m), &none);
	} else if (first) {
		root = yblocknode(p, -1, YINDOC);
	} else {
		yfail(p, p->m.pos, "expected '---' before another document");
	}
	if (p->col >= 0)
		yfail(p, p->m.pos, "unexpected %s after the end of the value", yshow(p));
	if (first)
		p->d->docend = p->m.pos;
	if (yatmarker(p) && !yatstart(p)) {
		p->m.pos += 3;
		ylineend(p);
	}
	return root;
}

/* c-byte-order-mark, and what YAML allows no text to hold; checked at once so
 * that the parser may trust every byte, and the NUL at the end */
static void
ycharacters(struct yparser *p)
{
	size_t i, k, len = p->d->len;
	uint32_t u;

	if (len >= 3 && !memcmp(p->t, "\xef\xbb\xbf", 3))
		p->start = p->m.pos = p->m.ls = 3;
	for (i = p->start; i < len; i += k) {
		u = (unsigned char)p->t[i];
		k = 1;
		if (u >= 0x80 && !(k = yutf8(p->t + i, len - i, &u)))
			yfail(p, i, "invalid UTF-8");
		if (u < 0x20 && u != '\t' && u != '\n' && u != '\r')
			yfail(p, i, "control character 0x%02x is not allowed", (unsigned)u);
	}
}

/* l-yaml-stream */
static void
ystream(struct yparser *p)
{
	struct ydoc *d = p->d;

	ycharacters(p);
	d->root = ydocument(p, true);
	if (!ycur(p))
		return;
	/* only the first counts, but all must parse */
	d->tail = NULL;
	while (ydocument(p, false))
		d->tail = NULL;
	d->tail = NULL;
}

/* All errors come back here; p is the caller's, for a local of the function
 * that calls setjmp would be indeterminate afterwards. */
static int
ytry(struct yparser *p, void (*grammar)(struct yparser *))
{
	if (setjmp(p->env))
		return -1;
	grammar(p);
	return 0;
}

static int
yrun(struct ydoc *d, const char *text, size_t len, void (*grammar)(struct yparser *))
{
	struct yparser p;
	int ret;

	memset(d, 0, sizeof *d);
	memset(&p, 0, sizeof p);
	if (len > YMAXTEXT) {
		snprintf(d->err, sizeof d->err, "the text is larger than %u MiB", YMAXTEXT >> 20);
		d->eline = d->ecol = 1;
		return -1;
	}
	d->text = ystrndup(&d->a, text, len);
	d->len = d->docend = len;
	p.d = d;
	p.t = d->text;
	p.m.line = 1;
	ret = ytry(&p, grammar);
	buffree(&p.b);
	if (ret < 0)
		d->root = NULL;
	return ret;
}

YUNUSED static int
yparse(struct ydoc *d, const char *text, size_t len)
{
	return yrun(d, text, len, ystream);
}

YUNUSED static void
yfree(struct ydoc *d)
{
	yarenafree(&d->a);
	memset(d, 0, sizeof *d);
}

/* ---- Parser: JSON ------------------------------------------------------ */

static void
yjsonskip(struct yparser *p)
{
	while (ycur(p) && strchr(" \t\r\n", ycur(p))) {
		if (yeol(ycur(p)))
			yeatnl(p);
		else
			p->m.pos++;
	}
}

static struct ynode *
yjsonstring(struct yparser *p)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	struct ynode *n = ynode(p, Y_STR, Y_DOUBLE);
	const char *q;
	int c;

	p->b.len = 0;
	for (p->m.pos++; (c = ycur(p)) != '"'; ) {
		if (!c)
			yfail(p, n->off, "unterminated string");
		if (c < 0x20)
			yfail(p, p->m.pos, "control character in a string");
		p->m.pos++;
		if (c != '\\') {
			bufputc(&p->b, c);
			continue;
		}
		c = ycur(p);
		if (c == 'u') {
			p->m.pos++;
			yuescape(p, 4, true);
		} else if (c && (q = strchr(from, c))) {
			p->m.pos++;
			bufputc(&p->b, to[q - from]);
		} else {
			yfail(p, p->m.pos, "unknown escape character %s", yshow(p));
		}
	}
	p->m.pos++;
	ysettext(p, n, p->b.s ? p->b.s : "", p->b.len);
	return n;
}

/* -?(0|[1-9]digits)(.digits)?([eE][+-]?digits)? */
static struct ynode *
yjsonnumber(struct yparser *p)
{
	struct ynode *n = ynode(p, Y_INT, Y_PLAIN);
	const char *s = p->t + p->m.pos, *e = s + (*s == '-'), *from = e;
	char *num, out[400];
	bool ok = ydigit((unsigned char)*e), whole = true;
	uint64_t v;

	while (ydigit((unsigned char)*e))
		e++;
	ok = ok && (*from != '0' || e == from + 1);
	if (*e == '.') {
		whole = false;
		ok = ok && ydigit((unsigned char)e[1]);
		for (e++; ydigit((unsigned char)*e); )
			e++;
	}
	if (*e == 'e' || *e == 'E') {
		whole = false;
		e += e[1] == '+' || e[1] == '-' ? 2 : 1;
		ok = ok && ydigit((unsigned char)*e);
		while (ydigit((unsigned char)*e))
			e++;
	}
	if (!ok)
		yfail(p, n->off, "invalid number");
	p->m.pos += (size_t)(e - s);
	ysettext(p, n, s, (size_t)(e - s));
	num = ystrndup(&p->d->a, s, n->len);
	if (whole && !ydigits(num + (*num == '-'), 10, &v) &&
	    (*num != '-' || v <= (uint64_t)LLONG_MAX + 1)) {
		(void)ynumber(&p->d->a, n);
		return n;
	}
	n->kind = Y_FLOAT;
	n->f = strtod(num, NULL);
	if (isinf(n->f))
		yfail(p, n->off, "number out of range");
	yfloattext(n->f, out);
	n->text = ystrndup(&p->d->a, out, strlen(out));
	return n;
}

static struct ynode *
yjsonword(struct yparser *p)
{
	static const char *const words[] = { "null", "true", "false" };
	struct ynode *n = ynode(p, Y_STR, Y_PLAIN);
	size_t i, k;

	for (i = 0; i < 3; i++) {
		k = strlen(words[i]);
		if (strncmp(p->t + p->m.pos, words[i], k))
			continue;
		p->m.pos += k;
		ysettext(p, n, words[i], k);
		yresolve(&p->d->a, n);
		return n;
	}
	yfail(p, p->m.pos, "unexpected %s", yshow(p));
}

/* object, array or any other value */
static struct ynode *
yjsonvalue(struct yparser *p)
{
	bool map;
	struct ynode *n, *v, *key = NULL;
	int c;

	yjsonskip(p);
	c = ycur(p);
	if (c == '"')
		return yjsonstring(p);
	if (c == '-' || ydigit(c))
		return yjsonnumber(p);
	if (c != '[' && c != '{')
		return yjsonword(p);
	map = c == '{';
	n = ynode(p, map ? Y_MAP : Y_SEQ, Y_FLOW);
	yenter(p);
	p->m.pos++;
	yjsonskip(p);
	while (n->n || ycur(p) != (map ? '}' : ']')) {
		if (map) {
			yjsonskip(p);
			if (ycur(p) != '"')
				yfail(p, p->m.pos, "expected a string as key, found %s", yshow(p));
			key = yjsonstring(p);
			yjsonskip(p);
			if (ycur(p) != ':')
				yfail(p, p->m.pos, "expected ':', found %s", yshow(p));
			p->m.pos++;
		}
		v = yjsonvalue(p);
		v->key = key;
		ylink(n, v);
		yjsonskip(p);
		if (ycur(p) == (map ? '}' : ']'))
			break;
		if (ycur(p) != ',')
			yfail(p, p->m.pos, "expected ',' or '%c', found %s", map ? '}' : ']', yshow(p));
		p->m.pos++;
	}
	n->end = ++p->m.pos;
	if (map)
		ynodups(p, n);
	p->depth--;
	return n;
}

static void
yjsontext(struct yparser *p)
{
	ycharacters(p);
	p->d->root = yjsonvalue(p);
	yjsonskip(p);
	if (ycur(p))
		yfail(p, p->m.pos, "unexpected %s after the value", yshow(p));
}

YUNUSED static int
yparsejson(struct ydoc *d, const char *text, size_t len)
{
	return yrun(d, text, len, yjsontext);
}

/* ---- Reading the tree -------------------------------------------------- */

YUNUSED static const char *
ystr(const struct ynode *n)
{
	return n && !yiscoll(n) ? n->text : NULL;
}

YUNUSED static const char *
ykey(const struct ynode *n)
{
	return n && n->key ? ykeytext(n->key) : NULL;
}

static struct ynode *
ygetn(const struct ynode *map, const char *key, size_t len)
{
	struct ynode *v;

	if (!map || map->kind != Y_MAP)
		return NULL;
	for (v = map->first; v; v = v->next)
		if (ykeylen(v->key) == len && !memcmp(ykeytext(v->key), key, len))
			return v;
	return NULL;
}

YUNUSED static struct ynode *
yget(const struct ynode *map, const char *key)
{
	return ygetn(map, key, strlen(key));
}

static struct ynode *
yitem(const struct ynode *seq, const char *s, size_t len)
{
	struct ynode *v = seq->first;
	size_t i, k = 0;

	if (!len || len > 9)
		return NULL;
	for (i = 0; i < len; i++) {
		if (!ydigit((unsigned char)s[i]))
			return NULL;
		k = k * 10 + (size_t)(s[i] - '0');
	}
	for (; v && k; v = v->next)
		k--;
	return v;
}

/* one step of a path: the value of a key, the item of an index */
static struct ynode *
ystep(const struct ynode *n, const char *s, size_t len)
{
	if (n && n->kind == Y_SEQ)
		return yitem(n, s, len);
	return ygetn(n, s, len);
}

YUNUSED static struct ynode *
ypath(const struct ynode *n, const char *path)
{
	size_t len;
	struct ynode *v;

	for (;; path += len + 1) {
		len = strcspn(path, ".");
		v = ystep(n, path, len);
		if (!v || !path[len])
			return v;
		n = v;
	}
}

YUNUSED static bool
yequal(const struct ynode *a, const struct ynode *b)
{
	const struct ynode *x, *y;

	if (a->kind != b->kind || a->n != b->n)
		return false;
	if (a->kind == Y_STR)
		return a->len == b->len && !memcmp(a->s, b->s, a->len);
	if (!yiscoll(a))
		return a->text == b->text || (a->text && b->text && !strcmp(a->text, b->text));
	for (x = a->first, y = b->first; x && y; x = x->next, y = y->next)
		if ((x->key && y->key && ykeycmp(x->key, y->key)) || !yequal(x, y))
			return false;
	return !x && !y;
}

/* ---- JSON output ------------------------------------------------------- */

/* Bytes that are no UTF-8 become U+FFFD. */
YUNUSED static void
yjsonstr(struct buf *b, const char *s, size_t n)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *q;
	size_t i, k;
	uint32_t u;

	bufputc(b, '"');
	for (i = 0; i < n; i += k) {
		for (k = 0; i + k < n && s[i + k] >= ' ' && s[i + k] < 127 && s[i + k] != '"' && s[i + k] != '\\'; k++)
			;
		if (k) {
			bufadd(b, s + i, k);
			continue;
		}
		if (!(k = yutf8(s + i, n - i, &u))) {
			bufputs(b, "\xef\xbf\xbd");
			k = 1;
		} else if (u && u < 0x80 && (q = strchr(from, (int)u))) {
			bufputc(b, '\\');
			bufputc(b, to[q - from]);
		} else if (u < 0x20) {
			bufprintf(b, "\\u%04x", (unsigned)u);
		} else {
			bufadd(b, s + i, k);
		}
	}
	bufputc(b, '"');
}

static void
yjsonbreak(struct buf *b, int blanks)
{
	if (blanks < 0)
		return;
	bufputc(b, '\n');
	bufblanks(b, blanks);
}

static void
yjsonnode(struct buf *b, const struct ynode *n, int indent, int level)
{
	const struct ynode *v;
	int in = indent ? indent * (level + 1) : -1;

	if (n->kind == Y_STR || (n->kind == Y_FLOAT && !isfinite(n->f))) {
		/* JSON has no word for infinity */
		yjsonstr(b, n->text, n->kind == Y_STR ? n->len : strlen(n->text));
		return;
	}
	if (!yiscoll(n)) {
		bufputs(b, n->text ? n->text : "null");
		return;
	}
	bufputc(b, n->kind == Y_MAP ? '{' : '[');
	for (v = n->first; v; v = v->next) {
		yjsonbreak(b, in);
		if (n->kind == Y_MAP) {
			yjsonstr(b, ykeytext(v->key), ykeylen(v->key));
			bufputs(b, indent ? ": " : ":");
		}
		yjsonnode(b, v, indent, level + 1);
		if (v->next)
			bufputc(b, ',');
	}
	if (n->first)
		yjsonbreak(b, indent ? indent * level : -1);
	bufputc(b, n->kind == Y_MAP ? '}' : ']');
}

YUNUSED static void
yjson(struct buf *b, const struct ynode *n, int indent)
{
	yjsonnode(b, n, indent, 0);
}

/* ---- YAML output: scalars ---------------------------------------------- */

/* Filled output, an edited text, the same without literal blocks */
enum yhow { YFILL, YEDIT, YFLAT };

/* What stands in the way of a style: computed in one pass. */
struct ytraits {
	bool bad;       /* not UTF-8 */
	bool ctrl;      /* needs escapes */
	bool nl, tab;
	bool loose;     /* a line ends with a blank */
	bool text;      /* something beside line ends */
	bool lead;      /* the first line of text starts with a blank */
};

static bool
yprintable(uint32_t u)
{
	return u >= 0x20 && u != 0x7f && !(u >= 0x80 && u <= 0xa0) && u != 0x2028 &&
		u != 0x2029 && u != 0xfeff && u != 0xfffe && u != 0xffff;
}

static struct ytraits
ylook(const char *s, size_t n)
{
	struct ytraits t = { 0 };
	size_t i, k;
	uint32_t u;

	for (i = 0; i < n; i += k) {
		if (!(k = yutf8(s + i, n - i, &u))) {
			t.bad = t.ctrl = true;
			k = 1;
			continue;
		}
		if (u == '\n') {
			t.nl = true;
			continue;
		}
		if (!t.text)
			t.lead = yblank((int)u);
		t.text = true;
		if (u == '\t')
			t.tab = true;
		else if (!yprintable(u))
			t.ctrl = true;
		if (yblank((int)u) && (i + 1 == n || s[i + 1] == '\n'))
			t.loose = true;
	}
	return t;
}

/* 2020-01-31..., 12:30, 1:2:3.4: other readers know dates and base 60 */
static bool
yistime(const char *s, size_t n)
{
	size_t i = 0, k;

	while (i < n && ydigit((unsigned char)s[i]))
		i++;
	if (i == 4 && n > 7 && s[4] == '-' && ydigit((unsigned char)s[5])) {
		for (i = 5; i < n && ydigit((unsigned char)s[i]); )
			i++;
		return i < n && s[i] == '-';
	}
	for (k = i + (i == 0 && n && (s[0] == '-' || s[0] == '+')); k < n; k++)
		if (!ydigit((unsigned char)s[k]) && !strchr(":._", s[k]))
			return false;
	return memchr(s, ':', n) && n > 1;
}

/* would a reader take it for something else than a string? */
static bool
yambiguous(const char *s, size_t n)
{
	static const char old[] = "y Y yes Yes YES n N no No NO on On ON off Off OFF << =";
	struct yarena tmp = { 0 };
	struct ynode t = { 0 };
	bool plain;

	if (memchr(s, 0, n))
		return true;
	t.s = ystrndup(&tmp, s, n);     /* s may end without NUL */
	t.len = n;
	yresolve(&tmp, &t);
	plain = t.kind == Y_STR && !yword(t.s, old);
	yarenafree(&tmp);
	return !plain || yistime(s, n);
}

/* Characters that make plain text something else; flow: inside [ ] or { }. */
static bool
yspecial(const char *s, size_t n, bool flow)
{
	size_t i;

	if (!n || strchr("*&[{}],!|>%'\"@` #", s[0]) || yblank((unsigned char)s[n - 1]) || s[n - 1] == ':')
		return true;
	if (strchr("-?:", s[0]) && (n == 1 || yblank((unsigned char)s[1]) || flow))
		return true;
	if (n >= 3 && (!memcmp(s, "---", 3) || !memcmp(s, "...", 3)))
		return true;
	for (i = 0; i < n; i++) {
		if (s[i] == ':' && i + 1 < n && yblank((unsigned char)s[i + 1]))
			return true;
		if (s[i] == '#' && i && yblank((unsigned char)s[i - 1]))
			return true;
		if (flow && yflowchar((unsigned char)s[i]))
			return true;
	}
	return false;
}

/* the wider rule of filled output */
static bool
yfillquoted(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (s[i] == '#' || s[i] == '\\' || (s[i] == '-' && i + 1 < n && s[i + 1] == ' '))
			return true;
	return yspecial(s, n, false) || yambiguous(s, n);
}

/* "...", with the escapes of Go, which YAML has too */
static void
ydoublestr(struct buf *b, const char *s, size_t n)
{
	static const char from[] = "\"\\\a\b\f\n\r\t\v", to[] = "\"\\abfnrtv";
	const char *q;
	size_t i, k;
	uint32_t u;

	bufputc(b, '"');
	for (i = 0; i < n; i += k) {
		if (!(k = yutf8(s + i, n - i, &u))) {
			bufputs(b, "\xef\xbf\xbd");
			k = 1;
		} else if (u && u < 0x80 && (q = strchr(from, (int)u))) {
			bufputc(b, '\\');
			bufputc(b, to[q - from]);
		} else if (yprintable(u)) {
			bufadd(b, s + i, k);
		} else {
			bufprintf(b, u < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)u);
		}
	}
	bufputc(b, '"');
}

static void
ysinglestr(struct buf *b, const char *s, size_t n)
{
	size_t i;

	bufputc(b, '\'');
	for (i = 0; i < n; i++) {
		if (s[i] == '\'')
			bufputc(b, '\'');
		bufputc(b, s[i]);
	}
	bufputc(b, '\'');
}

static void
ybinarystr(struct buf *b, const char *s, size_t n)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)s;
	uint32_t v;
	size_t i;

	bufputs(b, "!!binary \"");
	for (i = 0; i < n; i += 3) {
		v = (uint32_t)p[i] << 16;
		v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
		v |= i + 2 < n ? (uint32_t)p[i + 2] : 0;
		bufputc(b, set[v >> 18]);
		bufputc(b, set[v >> 12 & 63]);
		bufputc(b, i + 1 < n ? set[v >> 6 & 63] : '=');
		bufputc(b, i + 2 < n ? set[v & 63] : '=');
	}
	bufputc(b, '"');
}

/* a string on one line */
static void
ystrout(struct buf *b, const char *s, size_t n, enum ystyle want, enum yhow how, bool flow)
{
	struct ytraits t = ylook(s, n);

	if (t.bad)
		ybinarystr(b, s, n);
	else if (t.ctrl || t.nl || t.tab || want == Y_DOUBLE)
		ydoublestr(b, s, n);
	else if (want == Y_SINGLE)
		ysinglestr(b, s, n);
	else if (how == YFILL ? yfillquoted(s, n) : !n || yambiguous(s, n))
		ydoublestr(b, s, n);
	else if (yspecial(s, n, flow))
		ysinglestr(b, s, n);
	else
		bufadd(b, s, n);
}

/* May the string be a literal block? With more than one line end at its end it
 * would swallow empty lines that follow it in an edited text. */
static bool
yliteralok(const char *s, size_t n, enum ystyle want, enum yhow how)
{
	struct ytraits t = ylook(s, n);

	if (how == YFLAT || t.ctrl || !t.text || (want != Y_LITERAL && want != Y_FOLDED && !t.nl))
		return false;
	if (how == YFILL)
		return !t.lead && !yfillquoted(s, n);
	if (n > 1 && s[n - 1] == '\n' && s[n - 2] == '\n')
		return false;
	return want == Y_LITERAL || want == Y_FOLDED || (!t.loose && want == Y_PLAIN);
}

/* |, its chomping, the lines in column ind; the last line end is left out */
static void
yliteralstr(struct buf *b, const char *s, size_t n, int ind)
{
	const char *e;

	bufputc(b, '|');
	if (ylook(s, n).lead)
		bufputc(b, '2');
	if (s[n - 1] != '\n')
		bufputc(b, '-');
	else if (--n && s[n - 1] == '\n')
		bufputc(b, '+');
	for (; ; s = e + 1) {
		e = memchr(s, '\n', n);
		bufputc(b, '\n');
		if (e != s && n)
			bufblanks(b, ind);
		bufadd(b, s, e ? (size_t)(e - s) : n);
		if (!e)
			break;
		n -= (size_t)(e - s) + 1;
	}
}

YUNUSED static void
yyamlstr(struct buf *b, const char *s, size_t n, int indent)
{
	if (indent >= 0 && yliteralok(s, n, Y_PLAIN, YFILL))
		yliteralstr(b, s, n, indent);
	else
		ystrout(b, s, n, Y_PLAIN, YFILL, false);
}

/* a float may not lose its point */
static void
yfloatout(struct buf *b, const struct ynode *n)
{
	const char *t = n->text, *e = strchr(t, 'e');

	if (!isfinite(n->f)) {
		bufputs(b, isnan(n->f) ? ".nan" : n->f > 0 ? ".inf" : "-.inf");
	} else if (strchr(t, '.')) {
		bufputs(b, t);
	} else {
		bufadd(b, t, e ? (size_t)(e - t) : strlen(t));
		bufputs(b, ".0");
		bufputs(b, e ? e : "");
	}
}

static void
yscalarout(struct buf *b, const struct ynode *n, enum yhow how, bool flow)
{
	if (n->kind == Y_STR)
		ystrout(b, n->s, n->len, how == YFILL ? Y_PLAIN : n->style, how, flow);
	else if (n->kind == Y_FLOAT && (how == YFILL || !n->s || !strchr(n->s, '.')))
		yfloatout(b, n);
	else if (how != YFILL && n->len)
		bufputs(b, n->s);
	else
		bufputs(b, n->text ? n->text : "null");
}

/* ---- YAML output: collections ------------------------------------------ */

static void
yflowout(struct buf *b, const struct ynode *n, enum yhow how)
{
	const struct ynode *v;

	if (!yiscoll(n)) {
		yscalarout(b, n, how, true);
		return;
	}
	bufputc(b, n->kind == Y_MAP ? '{' : '[');
	for (v = n->first; v; v = v->next) {
		if (n->kind == Y_MAP) {
			yscalarout(b, v->key, how, true);
			bufputs(b, ": ");
		}
		yflowout(b, v, how);
		if (v->next)
			bufputs(b, ", ");
	}
	bufputc(b, n->kind == Y_MAP ? '}' : ']');
}

static void yvalueout(struct buf *b, const struct ynode *n, int ind, bool inseq, enum yhow how);

/* One entry of a block collection whose entries stand in column ind. */
static void
yentryout(struct buf *b, const struct ynode *v, int ind, enum yhow how)
{
	if (v->parent->kind == Y_MAP) {
		yscalarout(b, v->key, how, false);
		bufputc(b, ':');
	} else {
		bufputc(b, '-');
	}
	yvalueout(b, v, ind, v->parent->kind == Y_SEQ, how);
}

static void
yblockout(struct buf *b, const struct ynode *n, int ind, enum yhow how)
{
	const struct ynode *v;

	for (v = n->first; v; v = v->next) {
		if (v != n->first) {
			bufputc(b, '\n');
			bufblanks(b, ind);
		}
		yentryout(b, v, ind, how);
	}
}

static bool
yasblock(const struct ynode *n, enum yhow how)
{
	return n->first && (how == YFILL || n->style != Y_FLOW);
}

/* What stands after ':' or '-': a blank and the value, or lines below. Dashes
 * are in the column of the key, all else two blanks deeper. */
static void
yvalueout(struct buf *b, const struct ynode *n, int ind, bool inseq, enum yhow how)
{
	int below = n->kind == Y_SEQ ? ind : ind + 2;

	if (yasblock(n, how) && inseq) {
		bufputc(b, ' ');
		yblockout(b, n, ind + 2, how);
	} else if (yasblock(n, how)) {
		if (below < 0)
			below = 0;
		bufputc(b, '\n');
		bufblanks(b, below);
		yblockout(b, n, below, how);
	} else if (n->kind == Y_STR && yliteralok(n->s, n->len, how == YFILL ? Y_PLAIN : n->style, how)) {
		bufputc(b, ' ');
		yliteralstr(b, n->s, n->len, ind < 0 ? 2 : ind + 2);
	} else if (yiscoll(n)) {
		bufputc(b, ' ');
		yflowout(b, n, how);
	} else {
		bufputc(b, ' ');
		yscalarout(b, n, how, false);
	}
}

/* A whole value in column ind, without the line end after it. */
static void
ytopout(struct buf *b, const struct ynode *n, int ind, enum yhow how)
{
	struct buf t = { 0 };

	if (yasblock(n, how)) {
		bufblanks(b, ind);
		yblockout(b, n, ind, how);
		return;
	}
	yvalueout(&t, n, ind, false, how);
	bufblanks(b, ind);
	bufadd(b, t.s + 1, t.len - 1);
	buffree(&t);
}

YUNUSED static void
yyaml(struct buf *b, const struct ynode *n, int indent)
{
	ytopout(b, n, indent, YFILL);
	bufputc(b, '\n');
}

/* ---- Changing the tree ------------------------------------------------- */

static struct ynode *
ynew(struct ydoc *d, enum ykind kind, const char *text)
{
	struct ynode *n = yalloc(&d->a, sizeof *n);

	n->kind = kind;
	n->style = kind == Y_SEQ || kind == Y_MAP ? Y_BLOCK : Y_PLAIN;
	n->dirty = n->fresh = true;
	if (text) {
		n->len = strlen(text);
		n->s = n->text = ystrndup(&d->a, text, n->len);
	}
	return n;
}

YUNUSED static struct ynode *
ynewstr(struct ydoc *d, const char *s)
{
	return ynew(d, Y_STR, s);
}

YUNUSED static struct ynode *
ynewint(struct ydoc *d, long long i)
{
	char t[32];
	struct ynode *n;

	snprintf(t, sizeof t, "%lld", i);
	n = ynew(d, Y_INT, t);
	n->i = i;
	n->f = (double)i;
	return n;
}

YUNUSED static struct ynode *
ynewfloat(struct ydoc *d, double f)
{
	char t[400];
	struct ynode *n;

	yfloattext(f, t);
	n = ynew(d, Y_FLOAT, t);
	n->s = NULL;            /* the text of a conversion is not YAML's */
	n->len = 0;
	n->f = f;
	return n;
}

YUNUSED static struct ynode *
ynewbool(struct ydoc *d, bool v)
{
	struct ynode *n = ynew(d, Y_BOOL, v ? "true" : "false");

	n->i = v;
	return n;
}

YUNUSED static struct ynode *
ynewnull(struct ydoc *d)
{
	return ynew(d, Y_NULL, NULL);
}

YUNUSED static struct ynode *
ynewseq(struct ydoc *d)
{
	return ynew(d, Y_SEQ, NULL);
}

YUNUSED static struct ynode *
ynewmap(struct ydoc *d)
{
	return ynew(d, Y_MAP, NULL);
}

/* A deep copy that belongs to d, of a node of any document. */
YUNUSED static struct ynode *
ycopy(struct ydoc *d, const struct ynode *from)
{
	struct ynode *n = yalloc(&d->a, sizeof *n), *v;
	const struct ynode *k;

	n->kind = from->kind;
	n->style = from->style;
	n->dirty = n->fresh = true;
	n->i = from->i;
	n->f = from->f;
	n->len = from->len;
	n->line = from->line;
	n->col = from->col;
	n->s = from->s ? ystrndup(&d->a, from->s, from->len) : NULL;
	if (from->text)
		n->text = from->kind == Y_STR ? n->s : ystrndup(&d->a, from->text, strlen(from->text));
	for (k = from->first; k; k = k->next) {
		v = ycopy(d, k);
		v->key = k->key ? ycopy(d, k->key) : NULL;
		ylink(n, v);
	}
	return n;
}

static void
ytouch(struct ynode *n)
{
	for (; n && !n->dirty; n = n->parent)
		n->dirty = true;
}

/* A node that may be put somewhere: one in use already is copied. */
static struct ynode *
yloose(struct ydoc *d, struct ynode *v)
{
	if (v->parent || v == d->root)
		v = ycopy(d, v);
	v->dirty = v->fresh = true;
	v->merged = v->merges = v->alias = false;
	v->off = v->end = v->ind = 0;
	v->key = NULL;
	v->next = NULL;
	return v;
}

/* null becomes an empty collection where it stands */
static void
yconvert(struct ynode *n, enum ykind kind)
{
	if (n->kind != Y_NULL)
		return;
	n->kind = kind;
	n->style = Y_BLOCK;
	n->fresh = true;
	n->s = n->text = NULL;
	n->len = 0;
	ytouch(n);
}

/* v takes the place of old; an equal value changes nothing. What now stands
 * there is returned. */
YUNUSED static struct ynode *
yreplace(struct ydoc *d, struct ynode *old, struct ynode *v)
{
	struct ynode *k, *up = old->parent;

	if (v == old || yequal(old, v))
		return old;
	v = yloose(d, v);
	if (old->kind == Y_STR && v->kind == Y_STR && v->style == Y_PLAIN)
		v->style = old->style;
	v->after = old->after || (yiscoll(old) && old->style == Y_BLOCK);
	v->off = old->off;
	v->end = old->end;
	v->ind = old->ind;
	v->line = old->line;
	v->col = old->col;
	v->key = old->key;
	v->next = old->next;
	v->parent = up;
	if (old == d->root)
		d->root = v;
	if (up) {
		if (up->first == old) {
			up->first = v;
		} else {
			for (k = up->first; k->next != old; k = k->next)
				;
			k->next = v;
		}
		if (up->last == old)
			up->last = v;
		ytouch(up);
	}
	old->parent = old->next = old->key = NULL;
	return v;
}

YUNUSED static struct ynode *
yputn(struct ydoc *d, struct ynode *map, const char *key, size_t len, struct ynode *v)
{
	struct ynode *old;

	yconvert(map, Y_MAP);
	if (map->kind != Y_MAP)
		return NULL;
	if ((old = ygetn(map, key, len)))
		return yreplace(d, old, v);
	v = yloose(d, v);
	v->key = ynewstr(d, "");
	v->key->s = v->key->text = ystrndup(&d->a, key, len);
	v->key->len = len;
	ylink(map, v);
	ytouch(map);
	return v;
}

YUNUSED static struct ynode *
yput(struct ydoc *d, struct ynode *map, const char *key, struct ynode *v)
{
	return yputn(d, map, key, strlen(key), v);
}

YUNUSED static void
yappend(struct ydoc *d, struct ynode *seq, struct ynode *item)
{
	yconvert(seq, Y_SEQ);
	if (seq->kind != Y_SEQ)
		return;
	ylink(seq, yloose(d, item));
	ytouch(seq);
}

YUNUSED static void
yprepend(struct ydoc *d, struct ynode *seq, struct ynode *item)
{
	yconvert(seq, Y_SEQ);
	if (seq->kind != Y_SEQ)
		return;
	item = yloose(d, item);
	item->parent = seq;
	item->next = seq->first;
	seq->first = item;
	if (!seq->last)
		seq->last = item;
	seq->n++;
	ytouch(seq);
}

YUNUSED static struct ynode *
yset(struct ydoc *d, const char *path, struct ynode *v)
{
	struct ynode *n = d->root, *next;
	size_t len, depth = 0;

	for (;; path += len + 1, n = next) {
		len = strcspn(path, ".");
		if (++depth > YMAXDEPTH)
			return NULL;
		yconvert(n, Y_MAP);
		if (!path[len])
			break;
		next = ystep(n, path, len);
		if (!next && n->kind == Y_MAP)
			next = yputn(d, n, path, len, ynewmap(d));
		if (!next)
			return NULL;
	}
	if (n->kind == Y_MAP)
		return yputn(d, n, path, len, v);
	return (next = ystep(n, path, len)) ? yreplace(d, next, v) : NULL;
}

/* ---- Places in the source ---------------------------------------------- */

static size_t
ylinestart(const struct ydoc *d, size_t i)
{
	size_t bom = d->len >= 3 && !memcmp(d->text, "\xef\xbb\xbf", 3) ? 3 : 0;

	while (i > bom && d->text[i - 1] != '\n' && d->text[i - 1] != '\r')
		i--;
	return i;
}

static size_t
ylinestop(const struct ydoc *d, size_t i)
{
	while (!yeol((unsigned char)d->text[i]))
		i++;
	return i;
}

/* the start of the line after the one of i */
static size_t
ynextstart(const struct ydoc *d, size_t i)
{
	i = ylinestop(d, i);
	if (d->text[i] == '\r' && d->text[i + 1] == '\n')
		i++;
	return d->text[i] ? i + 1 : i;
}

/* where the entry of a value starts: its key or its dash */
static size_t
yentrystart(const struct ynode *v)
{
	return v->key ? v->key->off : v->ind - 1;
}

static int
yentrycol(const struct ydoc *d, const struct ynode *v)
{
	size_t at = yentrystart(v);

	return (int)(at - ylinestart(d, at));
}

static bool
ymidline(const struct ydoc *d, size_t at)
{
	size_t i = ylinestart(d, at);

	while (i < at && d->text[i] == ' ')
		i++;
	return i < at;
}

/* The line after an entry and the comments below that are deeper than it. */
static size_t
yentrystop(const struct ydoc *d, const struct ynode *v)
{
	size_t end = ynextstart(d, v->end), i, p;
	int col = yentrycol(d, v);

	for (i = end; i < d->docend; i = ynextstart(d, i)) {
		p = i + strspn(d->text + i, " \t");
		if (d->text[p] != '#' && !yeol((unsigned char)d->text[p]))
			break;
		if ((long)(p - i) > col)
			end = ynextstart(d, i);
	}
	return end;
}

/* Do the bytes of the collection still count, that is: are its entries lines
 * which can be cut and added to? */
static bool
yinsource(const struct ynode *n)
{
	for (; n; n = n->parent)
		if (n->fresh || n->style == Y_FLOW || n->merges)
			return false;
	return true;
}

YUNUSED static void
ydel(struct ydoc *d, struct ynode *v)
{
	struct ynode *up = v ? v->parent : NULL, **k, *last = NULL;
	struct ysplice *c;

	if (!up)
		return;
	for (k = &up->first; *k != v; k = &(*k)->next)
		last = *k;
	*k = v->next;
	if (up->last == v)
		up->last = last;
	up->n--;
	ytouch(up);
	v->parent = v->next = NULL;
	if (!v->ind || !yinsource(up))
		return;
	if (!up->n || ymidline(d, yentrystart(v))) {
		up->fresh = true;
		return;
	}
	if (d->ncuts == d->capcuts) {
		d->capcuts = d->capcuts ? d->capcuts * 2 : 8;
		c = yalloc(&d->a, d->capcuts * sizeof *c);
		if (d->ncuts)
			memcpy(c, d->cuts, d->ncuts * sizeof *c);
		d->cuts = c;
	}
	c = &d->cuts[d->ncuts++];
	c->off = ylinestart(d, yentrystart(v));
	c->end = yentrystop(d, v);
	c->cut = true;
}

/* ---- Writing the changed text ------------------------------------------ */

struct ywriter {
	struct ydoc *d;
	struct ysplice *sp;
	size_t n, cap;
};

/* takes s */
static void
ysplice(struct ywriter *w, size_t off, size_t end, struct buf s, bool lines)
{
	struct ysplice *sp;

	if (w->n == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 16;
		if (!(sp = realloc(w->sp, w->cap * sizeof *sp)))
			YOOM();
		w->sp = sp;
	}
	sp = &w->sp[w->n];
	memset(sp, 0, sizeof *sp);
	sp->off = off;
	sp->end = end;
	sp->seq = w->n++;
	sp->lines = lines;
	sp->s = s.s;
	sp->len = s.len;
}

static struct buf
ypiece(const char *s, size_t n)
{
	struct buf b = { 0 };

	bufadd(&b, s, n);
	return b;
}

/* Would a literal block, its text deeper than col, swallow the lines from i?
 * It takes deeper comments, and blanks, for more of its text. */
static enum yhow
yhowat(const struct ydoc *d, size_t i, int col)
{
	size_t p;

	for (; i < d->docend; i = ynextstart(d, i)) {
		p = i + strspn(d->text + i, " \t");
		if (d->text[p] != '#' && !yeol((unsigned char)d->text[p]))
			break;
		if ((long)(p - i) > col)
			return YFLAT;
	}
	return YEDIT;
}

/* A comment behind the old value. It may have stood right after a quote. */
static void
ytrailing(struct buf *b, const struct ydoc *d, const struct ynode *n)
{
	size_t stop = ylinestop(d, n->end);

	if (n->after || !memchr(d->text + n->end, '#', stop - n->end))
		return;
	if (d->text[n->end] == '#')
		bufputs(b, "  ");
	bufadd(b, d->text + n->end, stop - n->end);
}

/* A new value in an old place, its parent's entries being in column col. Its
 * first line goes behind the ':' or '-', the rest below that line, so that a
 * comment there stays one. */
static void
yslot(struct ywriter *w, const struct ynode *n, int col, bool inseq)
{
	struct ydoc *d = w->d;
	struct buf b = { 0 }, t = { 0 };
	size_t head, stop = ylinestop(d, n->ind), at = n->ind, last = ylinestop(d, n->end);

	yvalueout(&b, n, col, inseq, yhowat(d, ynextstart(d, n->end), col));
	head = strcspn(b.s, "\n");
	if (n->off > stop) {            /* the old value stood below */
		ysplice(w, at, at, ypiece(b.s, head), false);
		ytrailing(&t, d, n);
		ysplice(w, stop, stop, t, false);
		at = ylinestart(d, n->off) - 1;
		if (d->text[at] == '\n' && d->text[at - 1] == '\r')
			at--;
		ysplice(w, at, last, ypiece(b.s + head, b.len - head), false);
	} else {
		/* keep the blanks there, but a compact map's first key has to
		 * stand where the others will */
		if (head && n->off > at && !(inseq && head < b.len)) {
			bufadd(&t, d->text + at, n->off - at);
			bufadd(&t, b.s + 1, head - 1);
		} else {
			bufadd(&t, b.s, head);
		}
		ytrailing(&t, d, n);
		bufadd(&t, b.s + head, b.len - head);
		ysplice(w, at, last, t, false);
	}
	buffree(&b);
}

/* The root changed as a whole. */
static void
yrootslot(struct ywriter *w, const struct ynode *n)
{
	struct ydoc *d = w->d;
	struct buf b = { 0 }, t = { 0 };
	size_t head;

	ytopout(&t, n, 0, yhowat(d, ynextstart(d, n->end), 0));
	head = strcspn(t.s, "\n");
	if (n->off == n->end) {         /* an empty document */
		bufputc(&t, '\n');
		ysplice(w, d->docend, d->docend, t, true);
		return;
	}
	if (ymidline(d, n->off)) {
		yslot(w, n, -2, false);
	} else {
		bufadd(&b, t.s, head);
		ytrailing(&b, d, n);
		bufadd(&b, t.s + head, t.len - head);
		ysplice(w, ylinestart(d, n->off), ylinestop(d, n->end), b, false);
	}
	buffree(&t);
}

/* The place for a new entry after the last one, which ends at i: behind the
 * comments that belong to this collection, as they are indented like its
 * entries and deeper than what follows; at the top that is the end. */
static size_t
yafter(const struct ydoc *d, size_t i, int col)
{
	size_t at = ynextstart(d, i), p, stop = d->docend, first = 0;
	int next = -1;

	for (p = at; p < stop; p = ynextstart(d, p)) {
		first = p + strspn(d->text + p, " \t");
		if (!yeol((unsigned char)d->text[first]) && d->text[first] != '#') {
			next = (int)(first - p);
			break;
		}
	}
	stop = p < stop ? p : stop;
	for (p = at; p < stop; ) {
		first = p + strspn(d->text + p, " \t");
		p = ynextstart(d, p);
		if (d->text[first] == '#') {
			if ((int)(first - ylinestart(d, first)) < col || (int)(first - ylinestart(d, first)) <= next)
				break;
			at = p;
		} else if (next < 0 && col == 0) {
			at = p;
		}
	}
	return at < d->docend ? at : d->docend;
}

/* the run of new entries that starts with v, as lines in column col */
static void
ynewlines(struct ywriter *w, const struct ynode *v, size_t at, int col)
{
	struct buf b = { 0 };

	for (; v && !v->ind; v = v->next) {
		bufblanks(&b, col);
		yentryout(&b, v, col, yhowat(w->d, at, col));
		bufputc(&b, '\n');
	}
	ysplice(w, at, at, b, true);
}

static void
ywalk(struct ywriter *w, struct ynode *n)
{
	struct ydoc *d = w->d;
	struct ynode *v, *old;
	size_t at;

	if (!n->dirty)
		return;
	for (old = n->first; old && !old->ind; old = old->next)
		;
	if (n->fresh || n->style != Y_BLOCK || !old ||
	    (old != n->first && ymidline(d, yentrystart(old)))) {
		if (n == d->root)
			yrootslot(w, n);
		else
			yslot(w, n, yentrycol(d, n), n->parent->kind == Y_SEQ);
		return;
	}
	at = yentrystart(old);
	if (old != n->first)
		ynewlines(w, n->first, ylinestart(d, at), yentrycol(d, old));
	for (v = old; v && v->ind; v = v->next)
		ywalk(w, v);
	if (v)
		ynewlines(w, v, yafter(d, n->end, yentrycol(d, old)), yentrycol(d, old));
}

static void
ymustwrite(struct ynode *n)
{
	n->fresh = n->dirty = true;
	ytouch(n->parent);
}

/* Unchanged nodes that a change elsewhere could alter: aliases, whose anchors
 * may have changed or gone, and |+ when lines below it were deleted. */
static void
yunsafe(const struct ydoc *d, struct ynode *n)
{
	struct ynode *v;

	if (n->alias || n->merges || (n->keep && d->ncuts))
		ymustwrite(n);
	if (n->alias)
		return;
	for (v = n->first; v; v = v->next)
		yunsafe(d, v);
}

static int
ysplicecmp(const void *x, const void *y)
{
	const struct ysplice *a = x, *b = y;

	if (a->off != b->off)
		return a->off < b->off ? -1 : 1;
	if (a->cut != b->cut)
		return a->cut - b->cut;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

YUNUSED static void
ywrite(struct ydoc *d, struct buf *out)
{
	struct ywriter w = { 0 };
	struct ysplice *sp;
	size_t i, at = 0, from = out->len;

	if (!d->root->dirty) {
		bufadd(out, d->text, d->len);
		return;
	}
	w.d = d;
	yunsafe(d, d->root);
	if (d->tail)            /* it would gain the line end it lacks */
		ymustwrite(d->tail);
	ywalk(&w, d->root);
	for (i = 0; i < d->ncuts; i++) {
		ysplice(&w, d->cuts[i].off, d->cuts[i].end, ypiece("", 0), false);
		w.sp[w.n - 1].cut = true;
	}
	if (w.n)
		qsort(w.sp, w.n, sizeof *w.sp, ysplicecmp);
	for (i = 0; i < w.n; i++) {
		sp = &w.sp[i];
		if (sp->off >= at) {    /* else inside something that went as a whole */
			bufadd(out, d->text + at, sp->off - at);
			if (sp->lines && out->len > from && out->s[out->len - 1] != '\n')
				bufputc(out, '\n');
			bufadd(out, sp->s, sp->len);
			at = sp->end;
		}
		free(sp->s);
	}
	free(w.sp);
	bufadd(out, d->text + at, d->len - at);
	if (out->len > from && out->s[out->len - 1] != '\n')
		bufputc(out, '\n');
}
