/* forward - where does a listener of the guest go?
 *
 * ./forward LIMA.YAML <LISTENERS: lines like those of the guest agent,
 * "+ tcp 127.0.0.1 80"; prints for each the rule and the host's end, "-" when it is
 * not forwarded, "?" when the line is none. */
#define _GNU_SOURCE
#define main limamain
#include "../lima.c"
#undef main

int
main(int argc, char *argv[])
{
	static struct conf c;
	struct buf b = { 0 };
	struct said o;
	struct end e;
	char *line = NULL;
	size_t cap = 0;
	int rule;

	hostinit();
	if (argc != 2 || readfile(argv[1], &b, 1 << 20) < 0)
		return 2;
	confload(&c, "t", b.s, b.len, argv[1], true);
	buffree(&b);
	if (c.errs)
		die("%s", c.errs);
	while (getline(&line, &cap, stdin) > 0) {
		if (parsesaid(chomp(line), &o) < 0 || o.what != SAIDNEW)
			puts("?");
		else if ((rule = matchport(&c, 60022, &o.port, &e)) < 0)
			puts("-");
		else
			printf("%d %s\n", rule, endtext(&e));
	}
	free(line);
	yarenafree(&perm);
	return 0;
}
