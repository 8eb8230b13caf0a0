/* fake - plays QEMU or ssh for test.sh
 *
 * Compiled once and linked to the names qemu-system-ARCH and ssh in a directory
 * that stands first in PATH. The files it reads and writes stand in that
 * directory, which /proc/self/exe tells (our environment is scrubbed):
 *	argv.NAME, fds.NAME, env.NAME	what it was started with (the last start)
 *	starts.NAME			a line for each start
 *	plan				what the QEMU does, a line each:
 *	  say TEXT	to stderr		serial TEXT	a line of serial.log
 *	  raw TEXT	the same without newline
 *	  exit N	end with status N	die		end by SIGKILL
 *	  wait FILE	go on when DIR/FILE is there
 *	  event JSON	a QMP event		deaf [N]	ignore the power button N times
 *	  nolock	take no lock on the pid file
 * A reset makes DIR/reset.
 * After the plan the QEMU serves its monitors until it is told to end. As
 * `ssh -N` the program is a master: it listens on ControlPath and waits. With a
 * file `sshfail` in the directory it says so and ends with 255. `ssh -O exit`
 * ends the master. With a file `background` no ssh stays; with `norsync` a guest
 * has none. Any other ssh
 * prints its last word and ends with 0.
 * As `httpd` it serves DIR/www on a port of 127.0.0.1 that it writes to DIR/port,
 * and notes what is asked in DIR/requests. Of a name that begins with slow it
 * sends half and then nothing, unless a range is asked. */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[4096];
static const char *name;
static volatile sig_atomic_t ended;

static const char *
fmt(const char *f, ...)
{
	static char bufs[8][8192];
	static int i;
	char *b = bufs[i++ % 8];
	va_list ap;

	va_start(ap, f);
	vsnprintf(b, sizeof bufs[0], f, ap);
	va_end(ap);
	return b;
}

static void
end(int sig)
{
	(void)sig;
	ended = 1;
}

/* Write down how we were started, before any descriptor of ours is open. */
static void
record(int argc, char *argv[], char *envp[])
{
	char link[1024], list[16384] = "";
	struct dirent *d;
	DIR *dp = opendir("/proc/self/fd");
	ssize_t n;
	FILE *f;
	int i;

	while (dp && (d = readdir(dp))) {
		if (*d->d_name == '.' || strtol(d->d_name, NULL, 10) == dirfd(dp))
			continue;
		n = readlinkat(dirfd(dp), d->d_name, link, sizeof link - 1);
		link[n < 0 ? 0 : n] = '\0';
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s %s\n", d->d_name, link);
	}
	if (dp)
		closedir(dp);
	if ((f = fopen(fmt("%s/fds.%s", dir, name), "w"))) {
		fputs(list, f);
		fclose(f);
	}
	if ((f = fopen(fmt("%s/env.%s", dir, name), "w"))) {
		for (i = 0; envp[i]; i++)
			fprintf(f, "%s\n", envp[i]);
		fclose(f);
	}
	if ((f = fopen(fmt("%s/argv.%s.tmp", dir, name), "w"))) {
		for (i = 0; i < argc; i++)
			fprintf(f, "%s\n", argv[i]);
		fclose(f);
		rename(fmt("%s/argv.%s.tmp", dir, name), fmt("%s/argv.%s", dir, name));
	}
	if ((f = fopen(fmt("%s/starts.%s", dir, name), "a"))) {
		fprintf(f, "%ld\n", (long)getpid());
		fclose(f);
	}
}

/* The value of key= in a QEMU option, doubled commas undone; "" without it. */
static const char *
optval(int argc, char *argv[], const char *key)
{
	static char out[4096];
	size_t n = 0;
	char *p;
	int i;

	for (i = 1; i < argc; i++)
		if ((p = strstr(argv[i], key))) {
			for (p += strlen(key); *p && n < sizeof out - 1; p++) {
				if (*p == ',' && *++p != ',')
					break;
				out[n++] = *p;
			}
			out[n] = '\0';
			return out;
		}
	return "";
}

static int
listenon(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 4) < 0)
		return -1;
	return fd;
}

/* ---- QEMU ---- */

static struct { int lfd, fd; char buf[4096]; size_t n; } mon[2] = { { -1, -1, "", 0 }, { -1, -1, "", 0 } };
static int serial = -1;
static int deaf;

static void
tell(int fd, const char *s)
{
	if (fd >= 0)
		(void)!send(fd, s, strlen(s), MSG_NOSIGNAL);
}

static void
shutdownguest(int guest)
{
	int i;

	for (i = 0; i < 2; i++)
		tell(mon[i].fd, fmt("{\"timestamp\":{\"seconds\":1,\"microseconds\":2},\"event\":\"SHUTDOWN\","
		    "\"data\":{\"guest\":%s,\"reason\":\"%s\"}}\r\n", guest ? "true" : "false",
		    guest ? "guest-shutdown" : "host-qmp-quit"));
	ended = 1;
}

/* Answer one line: {}, or to a line for people the text of the file hmp, as
 * JSON; those lines are written down in hmp.log. */
static void
people(int i)
{
	char text[4096] = "", *id = strstr(mon[i].buf, "\"id\":"), *line = strstr(mon[i].buf, "\"command-line\":");
	FILE *f;

	if (line && (f = fopen(fmt("%s/hmp", dir), "r"))) {
		if (!fgets(text, sizeof text, f))
			*text = '\0';
		text[strcspn(text, "\n")] = '\0';
		fclose(f);
	}
	if (line && (f = fopen(fmt("%s/hmp.log", dir), "a"))) {
		line += strlen("\"command-line\":");
		fprintf(f, "%.*s\n", (int)strcspn(line, "}"), line);
		fclose(f);
	}
	tell(mon[i].fd, fmt("{\"return\": %s%s%ld}\r\n", line ? *text ? text : "\"\"" : "{}",
	    id ? ", \"id\": " : ", \"x\": ", id ? strtol(id + 5, NULL, 10) : 0L));
}

static void
monitor(int i)
{
	char *nl;
	ssize_t n = recv(mon[i].fd, mon[i].buf + mon[i].n, sizeof mon[i].buf - 1 - mon[i].n, 0);

	if (n <= 0) {
		close(mon[i].fd);
		mon[i].fd = -1;
		mon[i].n = 0;
		return;
	}
	mon[i].buf[mon[i].n += (size_t)n] = '\0';
	while ((nl = strchr(mon[i].buf, '\n'))) {
		*nl = '\0';
		people(i);
		if (strstr(mon[i].buf, "\"quit\""))
			shutdownguest(0);
		else if (strstr(mon[i].buf, "\"system_reset\""))
			close(open(fmt("%s/reset", dir), O_CREAT|O_WRONLY, 0600));
		else if (strstr(mon[i].buf, "\"system_powerdown\"") && deaf-- <= 0)
			shutdownguest(1);
		memmove(mon[i].buf, nl + 1, strlen(nl + 1) + 1);
		mon[i].n = strlen(mon[i].buf);
	}
}

static void
serve(int ms)
{
	struct pollfd p[4];
	int i;

	for (i = 0; i < 2; i++) {
		p[i] = (struct pollfd){ .fd = mon[i].fd >= 0 ? -1 : mon[i].lfd, .events = POLLIN };
		p[2 + i] = (struct pollfd){ .fd = mon[i].fd, .events = POLLIN };
	}
	if (poll(p, 4, ms) <= 0)
		return;
	for (i = 0; i < 2; i++) {
		if (p[i].revents && (mon[i].fd = accept(mon[i].lfd, NULL, NULL)) >= 0)
			tell(mon[i].fd, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 9}, "
			    "\"package\": \"fake\"}, \"capabilities\": [\"oob\"]}}\r\n");
		else if (p[2 + i].revents)
			monitor(i);
	}
}

static int
qemu(int argc, char *argv[])
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char line[4096], *arg, pidfile[4096] = "";
	struct stat st;
	int i, fd, lock = 1;
	FILE *plan = fopen(fmt("%s/plan", dir), "r");

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		FILE *f = fopen(fmt("%s/version", dir), "r");
		char text[64] = "9.2.0";
		if (f && !fgets(text, sizeof text, f))
			return 1;
		printf("QEMU emulator version %s\n", text);
		return 0;
	}
	if (argc > 2 && strcmp(argv[1], "-cpu") == 0 && strcmp(argv[2], "help") == 0) {
		puts("x86 qemu64\nx86 new-v2\nx86 new\n  'fine'");
		return 0;
	}
	while (plan && fgets(line, sizeof line, plan))
		lock &= strncmp(line, "nolock", 6) != 0;
	if (plan)
		rewind(plan);
	for (i = 1; i < argc - 1; i++)
		if (strcmp(argv[i], "-pidfile") == 0)
			snprintf(pidfile, sizeof pidfile, "%s", argv[i + 1]);
	if (*pidfile && lock) {
		if ((fd = open(pidfile, O_RDWR|O_CREAT, 0600)) < 0 || fcntl(fd, F_SETLK, &fl) < 0) {
			fprintf(stderr, "%s: cannot create PID file: Resource temporarily unavailable\n", name);
			return 1;
		}
		dprintf(fd, "%ld\n", (long)getpid());
	}
	serial = open(optval(argc, argv, "logfile="), O_WRONLY|O_CREAT|O_APPEND, 0600);
	mon[0].lfd = fcntl(3, F_GETFD) >= 0 && fstat(3, &st) == 0 && S_ISSOCK(st.st_mode) ? 3 : -1;
	mon[1].lfd = listenon(optval(argc, argv, "id=char-qmp,path="));
	while (!ended && plan && fgets(line, sizeof line, plan)) {
		line[strcspn(line, "\n")] = '\0';
		arg = strchr(line, ' ');
		arg = arg ? arg + 1 : line + strlen(line);
		if (strncmp(line, "say ", 4) == 0)
			fprintf(stderr, "%s: %s\n", name, arg);
		else if (strncmp(line, "serial ", 7) == 0)
			dprintf(serial, "%s\r\n", arg);
		else if (strncmp(line, "raw ", 4) == 0)
			dprintf(serial, "%s", arg);
		else if (strncmp(line, "exit ", 5) == 0)
			return (int)strtol(arg, NULL, 10);
		else if (strcmp(line, "die") == 0)
			kill(getpid(), SIGKILL);
		else if (strncmp(line, "deaf", 4) == 0)
			deaf = *arg ? (int)strtol(arg, NULL, 10) : 1 << 30;
		else if (strncmp(line, "event ", 6) == 0)
			tell(mon[0].fd, fmt("%s\r\n", arg));
		else if (strncmp(line, "wait ", 5) == 0)
			while (!ended && access(fmt("%s/%s", dir, arg), F_OK) < 0)
				serve(20);
	}
	if (plan)
		fclose(plan);
	while (!ended)
		serve(50);              /* a signal may come just before poll */
	if (*pidfile)
		unlink(pidfile);
	return 0;
}

/* ---- ssh ---- */

static int
ssh(int argc, char *argv[])
{
	char line[4096], path[4096] = "", *p, *q;
	const char *conf = NULL, *ask = NULL;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct ucred uc = { 0 };
	socklen_t n = sizeof uc;
	int i, master = 0, fd, c;
	FILE *f;

	for (i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-V") == 0) {
			fputs("OpenSSH_9.2p1 Fake, OpenSSL 3.0.0\n", stderr);
			return 0;
		}
		if (strcmp(argv[i], "-F") == 0 && i + 1 < argc)
			conf = argv[i + 1];
		if (strcmp(argv[i], "-O") == 0 && i + 1 < argc)
			ask = argv[i + 1];
		master |= strcmp(argv[i], "-N") == 0;
	}
	if (strcmp(argv[argc - 1], "command -v rsync") == 0)
		return access(fmt("%s/norsync", dir), F_OK) == 0;
	if (access(fmt("%s/background", dir), F_OK) == 0)
		return access(fmt("%s/sshfail", dir), F_OK) == 0 ? 255 : 0;
	if (!master && !ask) {
		puts(argv[argc - 1]);
		return strstr(argv[argc - 1], "/bin/false") != NULL;
	}
	if (!ask && access(fmt("%s/sshfail", dir), F_OK) == 0) {
		fputs("kex_exchange_identification: read: Connection reset by peer\r\nfake ssh: refused\r\n", stderr);
		return 255;
	}
	if (!conf || !(f = fopen(conf, "r")))
		return 255;
	while (fgets(line, sizeof line, f))
		if ((p = strstr(line, "ControlPath "))) {
			p += strlen("ControlPath ");
			p += *p == '"';
			for (q = path; *p && *p != '"' && *p != '\n' && q < path + sizeof path - 1; p++)
				if (*p != '%' || p[1] != '%')
					*q++ = *p;
			*q = '\0';
		}
	fclose(f);
	if (ask) {      /* exit and stop end the master, check and others do nothing */
		memcpy(sa.sun_path, path, strnlen(path, sizeof sa.sun_path - 1));
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
		    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &n) < 0)
			return 255;
		if (strcmp(ask, "exit") == 0 || strcmp(ask, "stop") == 0)
			kill(uc.pid, SIGTERM);
		else
			return 0;
		/* the real one waits for an answer, too */
		return recv(fd, path, 1, 0) > 0;
	}
	if ((fd = listenon(fmt("%s.0123456789abcdef", path))) < 0)
		return 255;
	if (link(fmt("%s.0123456789abcdef", path), path) < 0)
		return 255;
	unlink(fmt("%s.0123456789abcdef", path));
	while (!ended) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		if (poll(&pfd, 1, 50) > 0 && (c = accept(fd, NULL, NULL)) >= 0)
			close(c);       /* poll: a signal may come just before accept */
	}
	unlink(path);
	return 255;
}

/* ---- HTTP ---- */

/* What the path begins with says how a file is served: slow: half of it, then
 * silence; cut: half of it, then the end; whole: never a range; page: as a web page;
 * redir/X: as X, by another address; loop: by its own again. PATH.time: its Last-Modified. */
static void
answer(int c)
{
	static char body[8 << 20];
	char req[8192] = "", path[1024] = "", mtime[64] = "Thu, 01 Jan 2026 00:00:00 GMT", *range, *cond;
	size_t n = 0, len;
	long from = 0;
	ssize_t r;
	int head;
	FILE *f;

	while (n < sizeof req - 1 && !strstr(req, "\r\n\r\n") && (r = read(c, req + n, sizeof req - 1 - n)) > 0)
		req[n += (size_t)r] = '\0';
	head = strncmp(req, "HEAD ", 5) == 0;
	/* a proxy is asked for a whole address */
	if (sscanf(req, "%*s /%1000[^ ?]", path) != 1 && sscanf(req, "%*s http://%*[^/]/%1000[^ ?]", path) != 1)
		return;
	if ((range = strcasestr(req, "\nRange: bytes=")))
		from = atol(range + strlen("\nRange: bytes="));
	if ((f = fopen(fmt("%s/requests", dir), "a"))) {
		if (head)
			fprintf(f, "%s HEAD\n", path);
		else
			fprintf(f, "%s %ld\n", path, from);
		fclose(f);
	}
	if (strncmp(path, "redir/", 6) == 0 || strncmp(path, "loop", 4) == 0) {
		tell(c, fmt("HTTP/1.1 302 Found\r\nLocation: /%s\r\nLast-Modified: Fri, 01 Jan 2016 00:00:00 GMT\r\n"
		    "Content-Length: 0\r\nConnection: close\r\n\r\n", path + (*path == 'r' ? 6 : 0)));
		return;
	}
	if (strstr(path, "..") || !(f = fopen(fmt("%s/www/%s", dir, path), "r"))) {
		tell(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
		if (!head)
			tell(c, "none\n");
		return;
	}
	len = fread(body, 1, sizeof body, f);
	fclose(f);
	if ((f = fopen(fmt("%s/www/%s.time", dir, path), "r"))) {
		if (!fgets(mtime, sizeof mtime, f))
			*mtime = '\0';
		fclose(f);
	}
	cond = strcasestr(req, "\nIf-Range: ");
	if (strncmp(path, "whole", 5) == 0 || (cond && strncmp(cond + 11, mtime, strlen(mtime)) != 0))
		range = NULL;
	if (range && (size_t)from >= len) {
		tell(c, fmt("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */%zu\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", len));
		return;
	}
	if (!range)
		from = 0;
	tell(c, fmt("HTTP/1.1 %s\r\nContent-Type: %s\r\nAccept-Ranges: bytes\r\nContent-Length: %zu\r\n",
	    range ? "206 Partial Content" : "200 OK", strncmp(path, "page", 4) == 0 ? "text/html; charset=utf-8" : "application/octet-stream", len - (size_t)from));
	if (*mtime)
		tell(c, fmt("Last-Modified: %s\r\n", mtime));
	if (range)
		tell(c, fmt("Content-Range: bytes %ld-%zu/%zu\r\n", from, len - 1, len));
	tell(c, "Connection: close\r\n\r\n");
	if (head)
		return;
	n = (strncmp(path, "slow", 4) == 0 || strncmp(path, "cut", 3) == 0) && !range ? len / 2 : len;
	while ((size_t)from < n && (r = send(c, body + from, n - (size_t)from, MSG_NOSIGNAL)) > 0)
		from += r;
	if (n < len && *path == 's') {
		struct pollfd p = { .fd = c, .events = POLLIN };
		(void)poll(&p, 1, -1);  /* until the client has had enough */
	}
}

static int
httpd(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t n = sizeof sa;
	int fd = socket(AF_INET, SOCK_STREAM, 0), c;
	FILE *f;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &n) < 0 || !(f = fopen(fmt("%s/port.tmp", dir), "w")))
		return 1;
	fprintf(f, "%d\n", ntohs(sa.sin_port));
	fclose(f);
	rename(fmt("%s/port.tmp", dir), fmt("%s/port", dir));
	signal(SIGCHLD, SIG_IGN);
	for (;;)
		if ((c = accept(fd, NULL, NULL)) >= 0) {
			if (fork() == 0) {      /* one may be slow */
				close(fd);
				answer(c);
				_exit(0);
			}
			close(c);
		}
}

int
main(int argc, char *argv[], char *envp[])
{
	struct sigaction sa = { .sa_handler = end };
	ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);

	name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	dir[n < 0 ? 0 : n] = '\0';
	*strrchr(dir, '/') = '\0';
	if (strcmp(name, "httpd") == 0)
		return httpd();
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	record(argc, argv, envp);
	return strcmp(name, "ssh") == 0 ? ssh(argc, argv) : qemu(argc, argv);
}
