/* fuzz - what comes from outside into each parser of lima.c
 *
 * FUZZ=TARGET ./fuzz-lima CORPUS...; `make fuzz` runs all targets below for a
 * bounded time each, with seeds from tests/seeds/TARGET.  With -DSTANDALONE the
 * files named on the command line are run, once each: found cases are kept as
 * seeds, and test.sh runs all seeds so. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdlib.h>

static _Noreturn void leave(int status);
#define exit(status) leave(status)              /* die() must not end the fuzzer */
#define main limamain
#include "../lima.c"
#undef main
#undef exit

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static jmp_buf out;
static bool inside;

static _Noreturn void
leave(int status)
{
	if (!inside)
		_exit(status);
	longjmp(out, 1);
}

#define HOLDS(cond) do { if (!(cond)) { fprintf(stderr, "does not hold: %s\n", #cond); abort(); } } while (0)

static void
fzqcow2(const char *s, size_t n)
{
	const char *fmt = NULL, *why, *path = "/proc/self/fd/9";
	long long size = -1;
	unsigned char h[104] = { 0 };

	memcpy(h, s, n < sizeof h ? n : sizeof h);
	if (!qcow2header(h, n < sizeof h ? n : sizeof h, &size)) {
		HOLDS(size >= 0 && size <= 1LL << 50);
		HOLDS(getbe64(h + 8) == 0);             /* no backing file */
		HOLDS(h[7] < 3 || !(h[79] & 4));        /* no data file */
	}
	HOLDS(ftruncate(9, 0) == 0 && pwrite(9, s, n, 0) == (ssize_t)n);
	why = imageformat(path, &fmt, &size);
	HOLDS(why || (fmt && size >= 0));
}

/* A size that is read is printed as one that reads as about the same. */
static void
fzsize(const char *s, size_t n)
{
	char err[128] = "";
	long long v, w;

	(void)n;
	if (parsesize(s, &v, err) < 0) {
		HOLDS(*err);
		return;
	}
	HOLDS(v >= 0);
	HOLDS(parsesize(printsize(v), &w, err) == 0);
	HOLDS(v < 1024 ? v == w : llabs(v - w) <= v / 1000);
}

/* Text templates, with a small tree below the dot. */
static void
fzgotmpl(const char *s, size_t n)
{
	static const char vars[] = "{User: u, Home: /h, UID: '1', Param: {a: b}, List: [1, x, {y: z}]}";
	struct ydoc d = { 0 };

	(void)n;
	HOLDS(yparse(&d, vars, sizeof vars - 1) == 0);
	(void)expandmap(&perm, s, d.root, "it");
	yfree(&d);
}

/* Console lines and other words of a guest, on their way to a terminal. */
static void
fzsafe(const char *s, size_t n)
{
	struct buf b = { 0 };
	size_t i;

	bufsafe(&b, s, n);
	for (i = 0; i < b.len; i++)
		HOLDS((unsigned char)b.s[i] >= 0x20 && (unsigned char)b.s[i] != 0x7f &&
		    !((unsigned char)b.s[i] == 0xc2 && (unsigned char)b.s[i + 1] < 0xa0));
	buffree(&b);
}

/* Words for the remote shell: what sh makes of them is what they were. */
static void
fzquote(const char *s, size_t n)
{
	struct buf b = { 0 }, got = { 0 };
	const char *end = s + n, *p;
	size_t k = 0;

	bufputs(&b, "printf '%s\\0'");
	for (p = s; p <= end && k++ < 64; p += strlen(p) + 1) {
		bufputc(&b, ' ');
		bufquote(&b, p);
	}
	end = p;
	if (b.len < 100000) {
		char *argv[] = { keep("sh"), keep("-c"), b.s, NULL };
		HOLDS(runto(argv, NULL, &got, -1) == 0);
		HOLDS(got.len == (size_t)(end - s) && memcmp(got.s, s, got.len) == 0);
	}
	buffree(&b);
	buffree(&got);
}

/* Locators: their scheme, an image's name and architecture, paths. */
static void
fzlocator(const char *s, size_t n)
{
	const struct arch *ar = imagearch(s);
	const char *p;

	(void)n;
	(void)schemelen(s);
	(void)imagesuffix(s);
	HOLDS(strlen(imagename(s, ar ? ar : &archs[0])) <= strlen(s) + 5);
	if ((p = cleanpath(s))) {
		HOLDS(*p != '/' && strcmp(p, "..") != 0 && !startswith(p, "../") && !strstr(p, "/../") && !endswith(p, "/.."));
		HOLDS(strcmp(cleanpath(p), p) == 0);
	}
	if (!badname(s))
		HOLDS(!strchr(s, '/') && *s != '.' && strlen(s) <= 76);
}

/* Packets of SFTP, served below a directory: nothing beside it may change. */
static struct { char dir[64]; struct stat st; } box;

static void
emptybox(void)
{
	*strrchr(box.dir, '/') = '\0';
	(void)rmtree(box.dir);
}

static void
fillbox(void)
{
	if (rmtree(box.dir) < 0 || mkdir(box.dir, 0755) < 0 || symlink("../canary", keep("%s/link", box.dir)) < 0 ||
	    symlink("/tmp", keep("%s/abs", box.dir)) < 0)
		die("%s:", box.dir);
}

static void
sftpbox(void)
{
	char top[] = "/tmp/lima-fuzz.XXXXXX";
	struct rlimit rl = { 1 << 20, 1 << 20 };
	int fd;

	if (!mkdtemp(top))
		die("mkdtemp:");
	snprintf(box.dir, sizeof box.dir, "%s/d", top);
	if ((fd = open(keep("%s/canary", top), O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0644)) < 0 ||
	    write(fd, "canary\n", 7) != 7 || fstat(fd, &box.st) < 0)
		die("%s:", top);
	close(fd);
	signal(SIGXFSZ, SIG_IGN);
	(void)setrlimit(RLIMIT_FSIZE, &rl);
	umask(0);
	fillbox();
	atexit(emptybox);
}

static void
fzsftp(const char *s, size_t n)
{
	static unsigned runs;
	struct fx f = { .guestuid = 1000, .guestgid = 1000 };
	struct stat st;
	size_t i, len;

	if (++runs % 2000 == 0)
		fillbox();
	f.readonly = n & 1;
	f.root = open(box.dir, O_PATH|O_DIRECTORY|O_CLOEXEC);
	HOLDS(f.root >= 0);
	bufputs(&f.out, "");
	/* each byte pair is a length, so that mutations keep packets apart */
	while (n > 1 && !f.gone) {
		len = (size_t)(unsigned char)s[0] << 8 | (unsigned char)s[1];
		s += 2;
		n -= 2;
		len = len < n ? len : n;
		if (len) {
			unsigned char *copy = xrealloc(NULL, 1, len);   /* its end is a wall */
			memcpy(copy, s, len);
			fxpacket(&f, copy, len);
			free(copy);
		}
		s += len;
		n -= len;
		HOLDS(f.out.len < 16 * FXMAX);
		f.out.len = 0;
	}
	for (i = 0; i < f.nh; i++)
		if (f.h[i].used) {
			if (f.h[i].dir)
				closedir(f.h[i].dir);
			else
				close(f.h[i].fd);
		}
	free(f.h);
	buffree(&f.out);
	close(f.root);
	HOLDS(stat(keep("%s/../canary", box.dir), &st) == 0 && st.st_size == box.st.st_size && st.st_mode == box.st.st_mode &&
	    st.st_mtime == box.st.st_mtime && st.st_uid == box.st.st_uid && st.st_nlink == 1);
}

/* Files of headers that curl or wget wrote. */
static void
fzheader(const char *s, size_t n)
{
	HOLDS(ftruncate(9, 0) == 0 && pwrite(9, s, n, 0) == (ssize_t)n);
	HOLDS(!strchr(header("/proc/self/fd/9", "Last-Modified"), '\n'));
}

/* What a guest agent may say: no line of it becomes anything but numbers, and
 * what is forwarded is printed as what the agent would say. */
static void
fzagent(const char *s, size_t n)
{
	static struct conf c;
	struct said o, again;
	struct end e;
	char addr[INET6_ADDRSTRLEN], line[128];

	(void)n;
	if (parsesaid(s, &o) < 0)
		return;
	HOLDS(o.what <= SAIDTIME);
	if (o.what != SAIDNEW && o.what != SAIDGONE)
		return;
	HOLDS(o.port.num);
	portaddr(&o.port, addr);
	snprintf(line, sizeof line, "%c %s %s %d", o.what == SAIDNEW ? '+' : '-', protoname[o.port.udp][0], addr, o.port.num);
	HOLDS(parsesaid(line, &again) == 0 && memcmp(&o.port, &again.port, sizeof o.port) == 0);
	c.autoforward = true;
	HOLDS(matchport(&c, 60022, &o.port, &e) < 0 || (e.port == o.port.num && strcmp(e.host, "127.0.0.1") == 0));
}

/* An expression on a document: it ends, and what it makes of the text can be
 * read again. */
static void
fzexpr(const char *s, size_t n)
{
	static const char doc[] = "a: 1 # c\nb: [x, {c: 2}]\nd:\n- e: \"f\"\n  g: 0x10 # h\n- null\ni: {}\n";
	const char *why, *text = xedit(doc, s, &why);
	struct ydoc d = { 0 };

	(void)n;
	HOLDS(text || *why);
	if (text)
		HOLDS(yparse(&d, text, strlen(text)) == 0);
	yfree(&d);
}

static const struct target { const char *name; void (*run)(const char *s, size_t n); } targets[] = {
	{ "qcow2", fzqcow2 }, { "size", fzsize }, { "gotmpl", fzgotmpl }, { "safe", fzsafe },
	{ "quote", fzquote }, { "locator", fzlocator }, { "sftp", fzsftp }, { "header", fzheader },
	{ "agent", fzagent }, { "expr", fzexpr },
};
static const struct target *target;
static struct yarena kept;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *name = getenv("FUZZ");
	size_t i;
	int fd;

	(void)argc;
	(void)argv;
	for (i = 0; i < LEN(targets) && (!name || strcmp(targets[i].name, name) != 0); i++)
		;
	if (i == LEN(targets)) {
		fputs("FUZZ must name a target:", stderr);
		for (i = 0; i < LEN(targets); i++)
			fprintf(stderr, " %s", targets[i].name);
		fputs("\n", stderr);
		_exit(2);
	}
	target = &targets[i];
	(void)setenv("LIMA_HOME", "/nonexistent", 1);
	hostinit();
	msg.min = PANIC;                /* warnings are no news here */
	if ((fd = memfd_create("input", MFD_CLOEXEC)) < 0 || dup2(fd, 9) < 0)
		die("memfd_create:");
	if (target->run == fzsftp)
		sftpbox();
	kept = perm;                    /* what host keeps outlives each run */
	perm = (struct yarena){ 0 };
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *s = malloc(len + 1);      /* sanitizers see a read behind it */

	if (!s)
		return 0;
	memcpy(s, data, len);
	s[len] = '\0';
	inside = true;
	if (setjmp(out) == 0)
		target->run(s, len);
	inside = false;
	free(s);
	yarenafree(&perm);
	return 0;
}

#ifdef STANDALONE
int
main(int argc, char *argv[])
{
	struct buf b = { 0 };
	int i;

	(void)LLVMFuzzerInitialize(&argc, &argv);
	for (i = 1; i < argc; i++) {
		b.len = 0;
		if (readfile(argv[i], &b, 1 << 20) < 0) {
			perror(argv[i]);
			return 1;
		}
		(void)LLVMFuzzerTestOneInput((const uint8_t *)b.s, b.len);
	}
	buffree(&b);
	return 0;
}
#endif
