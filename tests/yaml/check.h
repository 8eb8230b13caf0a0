/* What must hold for every text that parses; shared by the test and the
 * fuzzer. Each check returns NULL or what went wrong. */

/* Equal values; JSON does not tell 4.0 from 4, nor knows infinity. */
static bool
alike(const struct ynode *a, const struct ynode *b, bool json)
{
	const struct ynode *x, *y;
	bool anum = a->kind == Y_INT || a->kind == Y_FLOAT;
	bool bnum = b->kind == Y_INT || b->kind == Y_FLOAT;

	if (json && anum && bnum)
		return a->f == b->f;
	if (json && a->kind == Y_FLOAT && b->kind == Y_STR)
		return !strcmp(a->text, b->text);
	if (json && a->kind == Y_STR && b->kind == Y_STR && !ylook(a->s, a->len).bad)
		return a->len == b->len && !memcmp(a->s, b->s, a->len);
	if (json && a->kind == Y_STR && b->kind == Y_STR)
		return true;            /* bytes became U+FFFD */
	if (a->kind != b->kind || a->n != b->n)
		return false;
	if (!yiscoll(a))
		return yequal(a, b);
	for (x = a->first, y = b->first; x && y; x = x->next, y = y->next) {
		if (!x->key != !y->key || !alike(x, y, json))
			return false;
		if (x->key && ykeycmp(x->key, y->key) && !(json && ylook(ykeytext(x->key), ykeylen(x->key)).bad))
			return false;
	}
	return !x && !y;
}

static bool
badkeys(const struct ynode *n)
{
	const struct ynode *v;

	for (v = n->first; v; v = v->next)
		if ((v->key && ylook(ykeytext(v->key), ykeylen(v->key)).bad) || badkeys(v))
			return true;
	return false;
}

static const char *
checktree(const struct ynode *n, size_t len)
{
	const struct ynode *v, *last = NULL;
	const char *e;
	size_t k = 0;

	if (n->off > n->end || n->end > len || n->line < 1 || n->col < 1)
		return "a node's place is wrong";
	for (v = n->first; v; last = v, v = v->next, k++) {
		if (v->parent != n)
			return "a node's parent is wrong";
		if (!v->key != (n->kind != Y_MAP))
			return "a node's key is wrong";
		if ((e = checktree(v, len)))
			return e;
	}
	return n->last != last || n->n != k ? "a list is broken" : NULL;
}

static const char *
checkjson(const struct ydoc *d, int indent)
{
	struct ydoc k;
	struct buf b = { 0 };
	const char *e = NULL;

	if (badkeys(d->root))   /* two such may become one */
		return NULL;
	yjson(&b, d->root, indent);
	if (yparsejson(&k, b.s, b.len) < 0)
		e = "JSON output does not parse as JSON";
	else if (!alike(d->root, k.root, true))
		e = "JSON output reads back as something else";
	yfree(&k);
	buffree(&b);
	return e;
}

static const char *
checkyaml(const struct ydoc *d)
{
	struct ydoc k;
	struct buf b = { 0 };
	const char *e = NULL;

	yyaml(&b, d->root, 0);
	if (yparse(&k, b.s, b.len) < 0)
		e = "YAML output does not parse";
	else if (!alike(d->root, k.root, false))
		e = "YAML output reads back as something else";
	yfree(&k);
	buffree(&b);
	return e;
}

/* Before a change: the same bytes; after one: the same tree. */
static const char *
checkwrite(struct ydoc *d)
{
	struct ydoc k;
	struct buf b = { 0 };
	const char *e = NULL;

	ywrite(d, &b);
	if (!d->root->dirty) {
		if (b.len != d->len || memcmp(b.s, d->text, d->len))
			e = "unchanged text is not written as it was";
	} else if (yparse(&k, b.s, b.len) < 0) {
		e = "changed text does not parse";
		yfree(&k);
	} else {
		if (!alike(d->root, k.root, false))
			e = "changed text reads back as something else";
		yfree(&k);
	}
	buffree(&b);
	return e;
}

static const char *
checkall(struct ydoc *d)
{
	const char *e;

	if ((e = checktree(d->root, d->len)) || (e = checkwrite(d)) || (e = checkjson(d, 0)))
		return e;
	if ((e = checkjson(d, 2)))
		return e;
	return checkyaml(d);
}
