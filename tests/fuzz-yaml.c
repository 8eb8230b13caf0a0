/* fuzz-yaml - any bytes as YAML and JSON, then random changes
 *
 * clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz-yaml.c
 * cc -DSTANDALONE tests/fuzz-yaml.c && ./a.out FILE...
 *
 * The input is a text; what follows a first NUL byte, if any, is a program of
 * changes, one byte each and one for its operand. */
#define _GNU_SOURCE
#include "../yaml.c"
#include "yaml/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
fail(const char *what, const struct ydoc *d)
{
	struct buf b = { 0 };

	fprintf(stderr, "%s\n---- text\n%.*s\n", what, (int)d->len, d->text);
	if (d->root && d->root->dirty) {
		yjson(&b, d->root, 0);
		fprintf(stderr, "---- tree\n%s\n", b.s);
		b.len = 0;
		ywrite((struct ydoc *)(uintptr_t)d, &b);
		fprintf(stderr, "---- written\n%s\n", b.s);
	}
	abort();
}

static size_t
count(const struct ynode *n)
{
	const struct ynode *v;
	size_t k = 1;

	for (v = n->first; v; v = v->next)
		k += count(v);
	return k;
}

/* the k-th node in document order */
static struct ynode *
pick(struct ynode *n, size_t *k)
{
	struct ynode *v, *r;

	if (!(*k)--)
		return n;
	for (v = n->first; v; v = v->next)
		if ((r = pick(v, k)))
			return r;
	return NULL;
}

static struct ynode *
value(struct ydoc *d, unsigned what)
{
	static const char *const texts[] = { "x", "", "80", "~", "a: b", "two\nlines\n", " lead\nx",
		"end \nx", "- x", "#c", "x\n\n", "\n", "it's", "a,b]", "\t", "é\x01", "yes", "12:30",
		"--- x", "%", "a #b", "key:", "\xff", "?", ":", "-", "{", "*a", "<<", "\nx" };
	struct ynode *n;

	switch (what % 8) {
	case 0:
		return ynewint(d, (long long)what - 100);
	case 1:
		return ynewbool(d, what & 8);
	case 2:
		return ynewnull(d);
	case 3:
		n = ynewseq(d);
		if (what & 8)
			yappend(d, n, value(d, what / 16));
		if (what & 16)
			yappend(d, n, value(d, what / 32));
		return n;
	case 4:
		n = ynewmap(d);
		if (what & 8)
			yput(d, n, "k", value(d, what / 16));
		if (what & 16)
			yput(d, n, "l: m", value(d, what / 32));
		return n;
	case 5:
		return ynewfloat(d, (double)what / 3 * 1e20);
	default:
		return ynewstr(d, texts[what / 4 % (sizeof texts / sizeof *texts)]);
	}
}

static void
change(struct ydoc *d, unsigned op, unsigned arg)
{
	static const char *const keys[] = { "a", "b", "new", "x y", "1", "null", "" };
	size_t k = op / 8 % count(d->root);
	struct ynode *n = pick(d->root, &k);

	switch (op % 8) {
	case 0:
	case 1:
		yreplace(d, n, value(d, arg));
		break;
	case 2:
		ydel(d, n);
		break;
	case 3:
		yappend(d, n, value(d, arg));
		break;
	case 4:
		yprepend(d, n, value(d, arg));
		break;
	case 5:
	case 6:
		yput(d, n, keys[arg % 7], value(d, arg / 7));
		break;
	default:
		yset(d, "a.b.c", value(d, arg));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *prog = memchr(data, 0, len);
	size_t n = prog ? (size_t)(prog - data) : len, i;
	struct ydoc d;
	const char *e;

	if (yparsejson(&d, (const char *)data, n) == 0 && (e = checkall(&d)))
		fail(e, &d);
	yfree(&d);
	if (yparse(&d, (const char *)data, n) == 0) {
		if ((e = checkall(&d)))
			fail(e, &d);
		for (i = n + 1; i + 1 < len && i < n + 40; i += 2)
			change(&d, data[i], data[i + 1]);
		if (d.root->dirty && ((e = checkwrite(&d)) || (e = checkjson(&d, 0)) || (e = checkyaml(&d))))
			fail(e, &d);
	} else if (!d.err[0] || d.eline < 1 || d.ecol < 1) {
		fail("error without reason or place", &d);
	}
	yfree(&d);
	if (prog && yparse(&d, (const char *)data, len) == 0)
		fail("NUL accepted", &d);
	yfree(&d);
	return 0;
}

#ifdef STANDALONE
int
main(int argc, char *argv[])
{
	struct buf b = { 0 };
	char t[4096];
	size_t n;
	FILE *f;
	int i;

	for (i = 1; i < argc; i++) {
		if (!(f = fopen(argv[i], "rb"))) {
			perror(argv[i]);
			return 1;
		}
		b.len = 0;
		while ((n = fread(t, 1, sizeof t, f)))
			bufadd(&b, t, n);
		fclose(f);
		(void)LLVMFuzzerTestOneInput((const uint8_t *)(b.s ? b.s : ""), b.len);
	}
	buffree(&b);
	return 0;
}
#endif
