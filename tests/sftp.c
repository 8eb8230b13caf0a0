/* sftp - speaks raw SFTP to a server, for test.sh
 *
 *	sftp SERVER [ARG...] <SCRIPT
 *
 * Starts the server and sends it one request a line of the script; %XX in a word
 * is a byte. Each answer is a line: `ok`, `status N`, or what was asked for. A
 * handle is named by its order from 0, a newline of data is shown as |, a NUL as 0.
 * Requests:
 *	open PATH FLAGS [MODE]	r w a(ppend) c(reate) t(runcate) e(xclusive)
 *	read H AT LEN		write H AT TEXT		close H
 *	opendir PATH		readdir H (all of it, a line a name, then `end`)
 *	stat PATH		lstat PATH		fstat H
 *	chmod PATH MODE		chown PATH UID GID	utime PATH A M	truncate PATH N
 *	fchmod H MODE		ftruncate H N
 *	remove PATH		mkdir PATH [MODE]	rmdir PATH
 *	rename A B		posixrename A B		link A B
 *	symlink TEXT PATH	readlink PATH		realpath PATH
 *	fsync H			statvfs PATH
 *	raw HEX			a packet as it is (its length is put before it)
 *	bytes HEX		bytes as they are, no answer is awaited
 *	flood N PATH		N lstat requests at once
 *	eof			close our end; print how the server ended */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int to, from;
static pid_t server;
static unsigned char pkt[1 << 20], reply[1 << 20];
static size_t len, rlen;
static uint32_t serial;
static struct { unsigned char s[256]; uint32_t n; } handles[10000];
static size_t nhandle;

static void
die(const char *what)
{
	printf("sftp: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void
u32(uint32_t v)
{
	int i;

	for (i = 24; i >= 0; i -= 8)
		pkt[len++] = (unsigned char)(v >> i);
}

static void
u64(unsigned long long v)
{
	u32((uint32_t)(v >> 32));
	u32((uint32_t)v);
}

static void
str(const char *s)
{
	char b[70000];
	size_t n = 0;
	unsigned c;

	for (; *s && n < sizeof b; s++)
		if (*s == '%' && sscanf(s + 1, "%2x", &c) == 1) {
			b[n++] = (char)c;
			s += 2;
		} else
			b[n++] = *s;
	u32((uint32_t)n);
	memcpy(pkt + len, b, n);
	len += n;
}

static void
handle(const char *s)
{
	size_t i = strtoul(s, NULL, 10);

	u32(handles[i].n);
	memcpy(pkt + len, handles[i].s, handles[i].n);
	len += handles[i].n;
}

static void
begin(int type)
{
	len = 4;
	pkt[len++] = (unsigned char)type;
	if (type != 1)
		u32(++serial);
}

static void
ext(const char *name)
{
	begin(200);
	str(name);
}

/* False when the server is gone. */
static int
get(void *p, size_t n)
{
	unsigned char *s = p;
	ssize_t r;

	while (n) {
		if ((r = read(from, s, n)) <= 0)
			return 0;
		s += r;
		n -= (size_t)r;
	}
	return 1;
}

static uint32_t
be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void
put(void)
{
	size_t n = len, at = 0;
	ssize_t w;

	len = 0;
	u32((uint32_t)n - 4);
	for (len = n; at < n; at += (size_t)w)
		if ((w = write(to, pkt + at, n - at)) < 0) {
			puts("gone");
			return;
		}
}

static int
take(void)
{
	unsigned char h[4];

	if (!get(h, 4))
		return 0;
	rlen = be32(h);
	if (rlen > sizeof reply || !get(reply, rlen)) {
		puts("a bad reply");
		return 0;
	}
	return 1;
}

static const unsigned char *
attrs(const unsigned char *p)
{
	printf("%o %u:%u size %llu mtime %u", be32(p + 20), be32(p + 12), be32(p + 16),
	    (unsigned long long)be32(p + 4) << 32 | be32(p + 8), be32(p + 28));
	return p + 32;
}

/* Print the answer; false when it says that there is no more. */
static int
answer(int names)
{
	const unsigned char *p = reply + 5;
	uint32_t i, n, k;

	if (!take()) {
		puts("gone");
		return 0;
	}
	if (reply[0] != 2 && be32(reply + 1) != serial) {
		printf("answer to %u, not %u\n", be32(reply + 1), serial);
		return 0;
	}
	switch (reply[0]) {
	case 2:
		printf("version %u", be32(reply + 1));
		for (p = reply + 5; p < reply + rlen; p += n) {
			n = be32(p);
			printf(" %.*s", (int)n, (const char *)p + 4);
			n += 4;
		}
		puts("");
		break;
	case 101:
		if (be32(p) == 0)
			puts("ok");
		else if (be32(p) == 1)
			puts(names ? "end" : "eof");
		else
			printf("status %u\n", be32(p));
		return 0;
	case 102:
		n = handles[nhandle].n = be32(p);
		memcpy(handles[nhandle].s, p + 4, n < 256 ? n : 256);
		printf("handle %zu\n", nhandle++);
		break;
	case 103:
		printf("data ");
		for (i = 0; i < be32(p); i++)
			putchar(p[4 + i] == '\n' ? '|' : p[4 + i] ? p[4 + i] : '0');
		puts("");
		break;
	case 104:
		k = be32(p);
		for (p += 4, i = 0; i < k; i++) {
			n = be32(p);
			printf("%s %.*s", names ? "name" : "path", (int)n, (const char *)p + 4);
			p += 4 + n;
			p += 4 + be32(p);
			if (be32(p)) {
				printf(" ");
				p = attrs(p);
			} else
				p += 4;
			puts("");
		}
		break;
	case 105:
		attrs(p);
		puts("");
		break;
	case 201:
		printf("statvfs bsize %u flag %u\n", be32(p + 4), be32(p + 76));
		break;
	default:
		printf("answer of type %d\n", reply[0]);
	}
	return 1;
}

static void
hex(const char *s)
{
	unsigned c;

	for (; sscanf(s, "%2x", &c) == 1 && len < sizeof pkt; s += 2)
		pkt[len++] = (unsigned char)c;
}

static uint32_t
flags(const char *s)
{
	static const char letters[] = "rwacte";
	uint32_t f = 0;

	for (; *s; s++)
		f |= 1U << (strchr(letters, *s) - letters);
	return f;
}

/* 0: send and print one answer; 1: done already; 2: readdir */
static int
request(char *w[], int n)
{
	static const struct { const char *name; int type; } paths[] = {
		{ "opendir", 11 }, { "stat", 17 }, { "lstat", 7 }, { "remove", 13 }, { "rmdir", 15 },
		{ "readlink", 19 }, { "realpath", 16 },
	}, hs[] = { { "close", 4 }, { "fstat", 8 } };
	unsigned long long i, k;
	int st;

	for (i = 0; i < sizeof paths / sizeof *paths; i++)
		if (strcmp(*w, paths[i].name) == 0) {
			begin(paths[i].type);
			str(w[1]);
			return 0;
		}
	for (i = 0; i < sizeof hs / sizeof *hs; i++)
		if (strcmp(*w, hs[i].name) == 0) {
			begin(hs[i].type);
			handle(w[1]);
			return 0;
		}
#define IS(s) (strcmp(*w, s) == 0)
	if (IS("open")) {
		begin(3), str(w[1]), u32(flags(w[2]));
		n > 3 ? u32(4), u32((uint32_t)strtoul(w[3], NULL, 8)) : u32(0);
	} else if (IS("read"))
		begin(5), handle(w[1]), u64(strtoull(w[2], NULL, 10)), u32((uint32_t)strtoul(w[3], NULL, 10));
	else if (IS("write"))
		begin(6), handle(w[1]), u64(strtoull(w[2], NULL, 10)), str(w[3]);
	else if (IS("readdir")) {
		do {
			begin(12), handle(w[1]);
			put();
		} while (answer(1));
		return 1;
	} else if (IS("chmod"))
		begin(9), str(w[1]), u32(4), u32((uint32_t)strtoul(w[2], NULL, 8));
	else if (IS("chown"))
		begin(9), str(w[1]), u32(2), u32((uint32_t)atoll(w[2])), u32((uint32_t)atoll(w[3]));
	else if (IS("utime"))
		begin(9), str(w[1]), u32(8), u32((uint32_t)atoll(w[2])), u32((uint32_t)atoll(w[3]));
	else if (IS("truncate"))
		begin(9), str(w[1]), u32(1), u64(strtoull(w[2], NULL, 10));
	else if (IS("fchmod"))
		begin(10), handle(w[1]), u32(4), u32((uint32_t)strtoul(w[2], NULL, 8));
	else if (IS("ftruncate"))
		begin(10), handle(w[1]), u32(1), u64(strtoull(w[2], NULL, 10));
	else if (IS("mkdir")) {
		begin(14), str(w[1]);
		n > 2 ? u32(4), u32((uint32_t)strtoul(w[2], NULL, 8)) : u32(0);
	} else if (IS("rename"))
		begin(18), str(w[1]), str(w[2]);
	else if (IS("posixrename"))
		ext("posix-rename@openssh.com"), str(w[1]), str(w[2]);
	else if (IS("link"))
		ext("hardlink@openssh.com"), str(w[1]), str(w[2]);
	else if (IS("symlink"))
		begin(20), str(w[1]), str(w[2]);
	else if (IS("fsync"))
		ext("fsync@openssh.com"), handle(w[1]);
	else if (IS("statvfs"))
		ext("statvfs@openssh.com"), str(w[1]);
	else if (IS("raw")) {
		len = 4;
		hex(w[1]);
		if (len >= 9)
			serial = be32(pkt + 5);
	} else if (IS("bytes")) {
		len = 0;
		hex(w[1]);
		return write(to, pkt, len) < 0 ? puts("gone"), 1 : 1;
	} else if (IS("flood")) {
		k = strtoull(w[1], NULL, 10);
		if (fork() == 0) {      /* as sshfs, which reads while it writes */
			for (i = 0; i < k; i++) {
				begin(7), str(w[2]);
				put();
			}
			_exit(0);
		}
		for (i = 0; i < k && take() && be32(reply + 1) == serial + i + 1; i++)
			;
		serial += (uint32_t)k;
		printf("%llu answers\n", i);
		return 1;
	} else if (IS("eof")) {
		close(to);
		while (take())
			;
		waitpid(server, &st, 0);
		printf(WIFEXITED(st) ? "exit %d\n" : "signal %d\n", WIFEXITED(st) ? WEXITSTATUS(st) : WTERMSIG(st));
		return 1;
	} else {
		printf("no request %s\n", *w);
		exit(2);
	}
	return 0;
}

int
main(int argc, char *argv[])
{
	int in[2], out[2], n;
	char line[100000], *w[8], *p;

	if (argc < 2 || pipe(in) < 0 || pipe(out) < 0)
		die("pipe");
	signal(SIGPIPE, SIG_IGN);
	if ((server = fork()) == 0) {
		signal(SIGPIPE, SIG_DFL);
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	to = in[1];
	from = out[0];
	setvbuf(stdout, NULL, _IOLBF, 0);
	begin(1), u32(3);
	put();
	(void)answer(0);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		for (n = 0, p = line; n < 7 && (w[n] = strtok(p, " ")); n++)
			p = NULL;
		if (!n || *w[0] == '#')
			continue;
		if (request(w, n) == 0) {
			put();
			(void)answer(0);
		}
	}
	close(to);
	waitpid(server, NULL, 0);
	return 0;
}
