/* yaml-test - yaml.c against tests/yaml/cases.txt, and hostile texts
 *
 * usage: yaml-test [CASES]; prints TAP. A case is a name and lines behind
 * marks, up to an empty line:
 *	<	a line of YAML		<e	text with \t \r \n \xHH \\, no line end
 *	{	a line of JSON
 *	>	the tree as compact JSON	!	the error, line:col: text
 *	?	path = text of the scalar (ystr)
 *	@	a change: set PATH V, put PATH KEY V, del PATH, append PATH V,
 *		prepend PATH V; V is YAML and gets block style; PATH . is the root
 *	=	a line of the text after the changes (=e as above)
 *	~	a line of the tree as filled YAML
 * Whatever parses is also written unchanged, as JSON and as YAML, and read
 * back. */
#define _GNU_SOURCE
#include "../yaml.c"
#include "yaml/check.h"
#include <time.h>

static int ntests, nfailed;

YPRINTF(3, 4) static void
result(const char *name, const char *what, const char *fmt, ...)
{
	char *s = NULL, *line, *save;
	va_list ap;

	printf("%s %d - %s\n", what ? "not ok" : "ok", ++ntests, name);
	if (!what)
		return;
	nfailed++;
	printf("# %s\n", what);
	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		exit(1);
	va_end(ap);
	for (line = strtok_r(s, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		printf("# %s\n", line);
	free(s);
}

/* ---- Cases ------------------------------------------------------------- */

struct tcase {
	char *name;
	struct buf in, json, err, get, edit, out, fill;
	bool isjson;
};

static void
addescaped(struct buf *b, const char *s)
{
	char hex[3] = "";

	for (; *s; s++) {
		if (*s != '\\') {
			bufputc(b, *s);
			continue;
		}
		switch (*++s) {
		case 't': bufputc(b, '\t'); break;
		case 'r': bufputc(b, '\r'); break;
		case 'n': bufputc(b, '\n'); break;
		case 'x':
			memcpy(hex, s + 1, 2);
			bufputc(b, (int)strtol(hex, NULL, 16));
			s += 2;
			break;
		default: bufputc(b, *s);
		}
	}
}

static void
addline(struct buf *b, const char *s)
{
	if (s[0] == 'e') {
		addescaped(b, s + 2);
		return;
	}
	bufputs(b, s[0] ? s + 1 : s);
	bufputc(b, '\n');
}

static void
blockstyle(struct ynode *n)
{
	struct ynode *v;

	n->style = yiscoll(n) ? Y_BLOCK : Y_PLAIN;
	for (v = n->first; v; v = v->next)
		blockstyle(v);
}

static struct ynode *
at(struct ydoc *d, const char *path)
{
	return strcmp(path, ".") ? ypath(d->root, path) : d->root;
}

/* NULL, or what was wrong with the change */
static const char *
applyedit(struct ydoc *d, char *line)
{
	char *op, *path, *key = NULL, *val, *save;
	struct ydoc vd;
	struct ynode *v, *n;
	const char *bad = NULL;

	op = strtok_r(line, " ", &save);
	path = strtok_r(NULL, " ", &save);
	if (!op || !path)
		return "bad change line";
	if (!strcmp(op, "del")) {
		ydel(d, at(d, path));
		return NULL;
	}
	if (!strcmp(op, "put"))
		key = strtok_r(NULL, " ", &save);
	val = strtok_r(NULL, "", &save);
	if (yparse(&vd, val ? val : "", val ? strlen(val) : 0) < 0) {
		yfree(&vd);
		return "value does not parse";
	}
	v = ycopy(d, vd.root);
	blockstyle(v);
	yfree(&vd);
	n = at(d, path);
	if (!strcmp(op, "set"))
		bad = (strcmp(path, ".") ? yset(d, path, v) : yreplace(d, n, v)) ? NULL : "yset failed";
	else if (!n)
		bad = "no such node";
	else if (!strcmp(op, "put"))
		bad = yput(d, n, key, v) ? NULL : "yput failed";
	else if (!strcmp(op, "append"))
		yappend(d, n, v);
	else if (!strcmp(op, "prepend"))
		yprepend(d, n, v);
	else
		bad = "unknown change";
	return bad;
}

static bool
same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->s, b->s, a->len));
}

/* Compares and reports; true when it went wrong. */
static bool
differs(const struct tcase *c, const char *what, const struct buf *want, const struct buf *got)
{
	if (same(want, got))
		return false;
	result(c->name, what, "wanted:\n%s\ngot:\n%s", want->s ? want->s : "", got->s ? got->s : "");
	return true;
}

static bool
checkgetters(struct tcase *c, struct ydoc *d)
{
	char *line, *save, *eq;
	const char *got;

	for (line = c->get.s ? strtok_r(c->get.s, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		if (!(eq = strstr(line, " = ")))
			eq = line + strlen(line) - 2;   /* "path =" */
		*eq = '\0';
		got = ystr(at(d, line));
		if (strcmp(got ? got : "(null)", eq[2] ? eq + 3 : "")) {
			result(c->name, "getter", "%s: wanted \"%s\", got \"%s\"", line, eq[2] ? eq + 3 : "", got ? got : "(null)");
			return true;
		}
	}
	return false;
}

static void
runcase(struct tcase *c)
{
	struct ydoc d;
	struct buf b = { 0 };
	const char *e;
	char *line, *save;
	int r;

	r = (c->isjson ? yparsejson : yparse)(&d, c->in.s ? c->in.s : "", c->in.len);
	if (r < 0) {
		bufprintf(&b, "%d:%d: %s\n", d.eline, d.ecol, d.err);
		if (!c->err.len)
			result(c->name, "does not parse", "%s", b.s);
		else if (!differs(c, "error", &c->err, &b))
			result(c->name, NULL, " ");
		goto done;
	}
	yjson(&b, d.root, 0);
	bufputc(&b, '\n');
	if (c->err.len) {
		result(c->name, "parsed, but should not have", "%s", b.s);
		goto done;
	}
	if (c->json.len && differs(c, "tree", &c->json, &b))
		goto done;
	if ((e = checkall(&d))) {
		result(c->name, e, " ");
		goto done;
	}
	if (checkgetters(c, &d))
		goto done;
	for (line = c->edit.s ? strtok_r(c->edit.s, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		if ((e = applyedit(&d, line))) {
			result(c->name, e, "%s", line);
			goto done;
		}
	}
	if (c->edit.len) {
		b.len = 0;
		ywrite(&d, &b);
		if (differs(c, "changed text", &c->out, &b))
			goto done;
		if ((e = checkwrite(&d))) {
			result(c->name, e, "%s", b.s);
			goto done;
		}
	}
	if (c->fill.len) {
		b.len = 0;
		yyaml(&b, d.root, 0);
		if (differs(c, "filled text", &c->fill, &b))
			goto done;
	}
	result(c->name, NULL, " ");
done:
	yfree(&d);
	buffree(&b);
}

static void
endcase(struct tcase *c)
{
	if (c->name)
		runcase(c);
	free(c->name);
	buffree(&c->in);
	buffree(&c->json);
	buffree(&c->err);
	buffree(&c->get);
	buffree(&c->edit);
	buffree(&c->out);
	buffree(&c->fill);
	memset(c, 0, sizeof *c);
}

static int
runfile(const char *path)
{
	struct tcase c = { 0 };
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	FILE *f;

	if (!(f = fopen(path, "r"))) {
		perror(path);
		return -1;
	}
	while ((n = getline(&line, &cap, f)) > 0) {
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		switch (line[0]) {
		case '\0': endcase(&c); break;
		case '#': break;
		case '{': c.isjson = true; addline(&c.in, line + 1); break;
		case '<': addline(&c.in, line + 1); break;
		case '>': addline(&c.json, line + 1); break;
		case '!': addline(&c.err, line + 1); break;
		case '?': addline(&c.get, line + 1); break;
		case '@': addline(&c.edit, line + 1); break;
		case '=': addline(&c.out, line + 1); break;
		case '~': addline(&c.fill, line + 1); break;
		default:
			if (c.name)
				endcase(&c);
			c.name = strdup(line);
		}
	}
	endcase(&c);
	free(line);
	fclose(f);
	return 0;
}

/* ---- Hostile texts ----------------------------------------------------- */

static void
repeat(struct buf *b, const char *s, size_t n)
{
	while (n--)
		bufputs(b, s);
}

/* Parses b within a generous time; want: NULL for success, or the error. */
static void
hostile(const char *name, struct buf *b, const char *want)
{
	struct timespec t0, t1;
	struct ydoc d;
	double sec;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &t0);
	r = yparse(&d, b->s ? b->s : "", b->len);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	sec = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
	if (sec > 10)
		result(name, "too slow", "%.1f seconds", sec);
	else if (r == 0 && want)
		result(name, "parsed, but should not have", " ");
	else if (r < 0 && (!want || !strstr(d.err, want)))
		result(name, "wrong error", "%d:%d: %s", d.eline, d.ecol, d.err);
	else
		result(name, NULL, " ");
	yfree(&d);
	buffree(b);
}

static void
hostiles(void)
{
	struct buf b = { 0 };
	int i;

	repeat(&b, "[", 100000);
	hostile("hostile: 100,000 unclosed [", &b, "nested too deeply");
	repeat(&b, "{a: ", 100000);
	hostile("hostile: 100,000 unclosed {", &b, "nested too deeply");
	repeat(&b, "[", 10000);
	repeat(&b, "]", 10000);
	hostile("hostile: 10,000 nested lists", &b, "nested too deeply");
	repeat(&b, "- ", 100000);
	hostile("hostile: 100,000 dashes on a line", &b, "nested too deeply");
	repeat(&b, "[", 900);
	repeat(&b, "]", 900);
	hostile("hostile: 900 nested lists are fine", &b, NULL);
	for (i = 0; i < 2000; i++) {
		bufblanks(&b, i);
		bufputs(&b, "a:\n");
	}
	hostile("hostile: 2,000 nested maps", &b, "nested too deeply");
	bufputs(&b, "a: \"");
	repeat(&b, "0123456789abcdef", 1 << 20);
	bufputs(&b, "\"\n");
	hostile("hostile: 16 MiB double-quoted", &b, NULL);
	bufputs(&b, "a: ");
	repeat(&b, "0123456789abcde ", 1 << 20);
	hostile("hostile: 16 MiB plain", &b, NULL);
	bufputs(&b, "a: |\n");
	repeat(&b, "  0123456789abc\n", 1 << 20);
	hostile("hostile: 16 MiB block scalar", &b, NULL);
	bufputs(&b, "a: x\n");
	repeat(&b, "  y\n", 1 << 20);
	hostile("hostile: a plain scalar of a million lines", &b, NULL);
	repeat(&b, "# comment\n", 1 << 20);
	hostile("hostile: a million comments", &b, NULL);
	repeat(&b, "\n", 16 << 20);
	hostile("hostile: 16 MiB of empty lines", &b, NULL);
	repeat(&b, "a", 33 << 20);
	hostile("hostile: more than 32 MiB", &b, "larger than");
	bufputs(&b, "a: [");
	repeat(&b, "1,", 8 << 20);
	bufputs(&b, "]");
	hostile("hostile: eight million items", &b, "too many nodes");
	for (i = 0; i < 100000; i++)
		bufprintf(&b, "k%d: %d\n", i, i);
	hostile("hostile: 100,000 keys", &b, NULL);
	for (i = 0; i < 100000; i++)
		bufprintf(&b, "k%d: %d\n", i, i);
	bufputs(&b, "k0: 1\n");
	hostile("hostile: 100,000 keys and one again", &b, "already defined at [1:1]");
	bufputs(&b, "a: &a0 [x]\n");
	for (i = 1; i < 40; i++)
		bufprintf(&b, "b%d: &a%d [*a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1);
	hostile("hostile: a bomb of aliases", &b, "too many nodes");
	bufputs(&b, "a: &a0 {x: 1}\n");
	for (i = 1; i < 40; i++)
		bufprintf(&b, "b%d: &a%d\n  l: *a%d\n  r: *a%d\n  <<: {m%d: *a%d}\n", i, i, i - 1, i - 1, i, i - 1);
	hostile("hostile: a bomb of merge keys", &b, "too many nodes");
	bufputs(&b, "a: &a0 [x]\n");
	for (i = 1; i < 900; i++) {
		bufprintf(&b, "b%d: &a%d ", i, i);
		repeat(&b, "[", 500);
		bufprintf(&b, "*a%d", i - 1);
		repeat(&b, "]", 500);
		bufputs(&b, "\n");
	}
	hostile("hostile: depth by aliases", &b, "nested too deeply");
	for (i = 0; i < 5000; i++)
		bufprintf(&b, "- &x%d y\n", i);
	hostile("hostile: 5,000 anchors", &b, "too many anchors");
	bufputs(&b, "a: [");
	repeat(&b, "'x' ,\n\n", 100000);
	bufputs(&b, "]");
	hostile("hostile: a long flow list over many lines", &b, NULL);
	repeat(&b, "\"", 1 << 20);
	hostile("hostile: a million quotes", &b, "unexpected");
	repeat(&b, "a: b: ", 1 << 20);
	hostile("hostile: a million colons on a line", &b, "mapping value is not allowed");
	repeat(&b, "&a ", 1 << 20);
	hostile("hostile: a million anchors on a node", &b, "only one anchor");
	repeat(&b, "!a\n", 1 << 20);
	hostile("hostile: a million tags", &b, "only one tag");
	repeat(&b, "---\n", 1 << 17);
	hostile("hostile: 128 Ki documents", &b, NULL);
	repeat(&b, "? ", 1 << 20);
	hostile("hostile: a million question marks", &b, "not supported");
	repeat(&b, ": ", 1 << 20);
	hostile("hostile: a million empty keys", &b, "invalid key");
	bufputs(&b, "a: |\n");
	for (i = 0; i < 5000; i++) {
		bufblanks(&b, i);
		bufputc(&b, '\n');
	}
	hostile("hostile: a block scalar of blanks", &b, NULL);
	bufputs(&b, "a: \"x");
	repeat(&b, " \n", 1 << 20);
	hostile("hostile: a fold without end", &b, "could not find end character");
	bufputs(&b, "a: x");
	for (i = 0; i < 50000; i++)
		bufputs(&b, "\n\n  # c");
	hostile("hostile: comments after a plain scalar", &b, NULL);
}

int
main(int argc, char *argv[])
{
	if (runfile(argc > 1 ? argv[1] : "tests/yaml/cases.txt") < 0)
		return 1;
	hostiles();
	printf("1..%d\n", ntests);
	if (nfailed)
		printf("# %d of %d failed\n", nfailed, ntests);
	return nfailed != 0;
}
