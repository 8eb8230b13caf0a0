/* serve - a small server, and its clients, for tests of port forwards
 *
 *	serve tcp|udp|unix ADDRESS [PORT...]    answer each client with "hello PORT"
 *	serve get tcp|udp|unix ADDRESS [PORT]   print what a server answers
 *	serve many N ADDRESS PORT               N connections at once: ms of the slowest, -1: one failed
 *	serve row N ADDRESS PORT                N connections, one after another: how many were answered
 *	serve pour ADDRESS PORT MIB             send so much; ms until the other side has closed
 *	serve sink ADDRESS PORT                 read all of one client after another
 *	serve door ADDRESS CONTROL PORT         open PORT at each o that a client of CONTROL sends, close it at each c
 *	serve knock N CONTROL PORT              N times: ms from asking for an o to an answer of PORT, from a c to its refusal
 *	serve watch PATH...                     say ready, then for each change of one: its path and what inotify tells
 *
 * A unix socket has a path for its ADDRESS. */
#define _GNU_SOURCE
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static union {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
} addr;
static socklen_t addrlen;

static long long
nowms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* A socket for this address, which goes to addr. */
static int
opensock(const char *type, const char *host, const char *port)
{
	unsigned short num = htons((unsigned short)(port ? strtol(port, NULL, 10) : 0));
	int fd, on = 1;

	memset(&addr, 0, sizeof addr);
	if (strcmp(type, "unix") == 0) {
		addr.un.sun_family = AF_UNIX;
		snprintf(addr.un.sun_path, sizeof addr.un.sun_path, "%s", host);
		addrlen = sizeof addr.un;
	} else if (inet_pton(AF_INET, host, &addr.in.sin_addr) == 1) {
		addr.in.sin_family = AF_INET;
		addr.in.sin_port = num;
		addrlen = sizeof addr.in;
	} else if (inet_pton(AF_INET6, host, &addr.in6.sin6_addr) == 1) {
		addr.in6.sin6_family = AF_INET6;
		addr.in6.sin6_port = num;
		addrlen = sizeof addr.in6;
	} else
		exit(2);
	if ((fd = socket(addr.sa.sa_family, strcmp(type, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM, 0)) < 0) {
		perror("socket");
		exit(1);
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return fd;
}

static int
bindsock(const char *type, const char *host, const char *port)
{
	int fd = opensock(type, host, port);

	if (strcmp(type, "unix") == 0)
		(void)unlink(host);
	if (bind(fd, &addr.sa, addrlen) < 0 || (strcmp(type, "udp") != 0 && listen(fd, 128) < 0)) {
		perror(host);
		exit(1);
	}
	return fd;
}

static int
serve(const char *type, const char *host, char *ports[], int n)
{
	static struct pollfd p[4096];
	struct sockaddr_storage from;
	socklen_t len;
	char buf[2048], text[64];
	int i, fd;

	for (i = 0; i < (n ? n : 1); i++)
		p[i] = (struct pollfd){ .fd = bindsock(type, host, n ? ports[i] : NULL), .events = POLLIN };
	puts("ready");
	fflush(stdout);
	while (poll(p, (nfds_t)(n ? n : 1), -1) > 0)
		for (i = 0; i < (n ? n : 1); i++) {
			if (!p[i].revents)
				continue;
			snprintf(text, sizeof text, "hello %s\n", n ? ports[i] : host);
			len = sizeof from;
			if (strcmp(type, "udp") == 0) {
				if (recvfrom(p[i].fd, buf, sizeof buf, 0, (void *)&from, &len) >= 0)
					(void)sendto(p[i].fd, text, strlen(text), 0, (void *)&from, len);
			} else if ((fd = accept(p[i].fd, NULL, NULL)) >= 0) {
				(void)!write(fd, text, strlen(text));
				close(fd);
			}
		}
	return 1;
}

/* What the server at this address answers, in buf; -1: nothing. */
static int
get(const char *type, const char *host, const char *port, char buf[64])
{
	struct timeval limit = { 5, 0 };
	int fd = opensock(type, host, port);
	ssize_t n = -1;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, &addr.sa, addrlen) == 0) {
		if (strcmp(type, "udp") == 0)
			(void)!write(fd, "x", 1);
		n = read(fd, buf, 63);
	}
	close(fd);
	if (n <= 0)
		return -1;
	buf[n] = '\0';
	return 0;
}

static int
many(int n, const char *host, const char *port)
{
	static struct pollfd p[1024];
	long long t0 = nowms();
	char buf[64];
	int i, left = n;

	for (i = 0; i < n; i++) {
		p[i] = (struct pollfd){ .fd = opensock("tcp", host, port), .events = POLLIN };
		(void)fcntl(p[i].fd, F_SETFL, O_NONBLOCK);
		(void)connect(p[i].fd, &addr.sa, addrlen);
	}
	while (left && poll(p, (nfds_t)n, 10000) > 0)
		for (i = 0; i < n; i++)
			if (p[i].fd >= 0 && p[i].revents) {
				if (read(p[i].fd, buf, sizeof buf) <= 0) {
					puts("-1");
					return 1;
				}
				close(p[i].fd);
				p[i].fd = -1;
				left--;
			}
	printf("%lld\n", left ? -1 : nowms() - t0);
	return left != 0;
}

static int
pour(const char *host, const char *port, long mib)
{
	static char buf[1 << 16];
	int fd = opensock("tcp", host, port);
	long i;
	long long t0 = nowms();

	if (connect(fd, &addr.sa, addrlen) < 0)
		return 1;
	for (i = 0; i < mib * 16; i++)
		if (write(fd, buf, sizeof buf) != (ssize_t)sizeof buf)
			return 1;
	shutdown(fd, SHUT_WR);
	while (read(fd, buf, sizeof buf) > 0)
		;
	printf("%lld\n", nowms() - t0);
	return 0;
}

static int
sink(const char *host, const char *port)
{
	static char buf[1 << 16];
	int s = bindsock("tcp", host, port), fd;

	for (;;) {
		if ((fd = accept(s, NULL, NULL)) < 0)
			return 1;
		while (read(fd, buf, sizeof buf) > 0)
			;
		close(fd);
	}
}

/* Each order is answered when it is done. */
static int
door(const char *host, const char *control, const char *port)
{
	int s = bindsock("tcp", host, control), fd = accept(s, NULL, NULL), at = -1, c;
	struct pollfd p[2];
	char order;

	while (fd >= 0) {
		p[0] = (struct pollfd){ .fd = fd, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = at, .events = POLLIN };
		(void)poll(p, 2, -1);
		if (p[1].revents && (c = accept(at, NULL, NULL)) >= 0) {
			(void)!write(c, "hello\n", 6);
			close(c);
		}
		if (!p[0].revents)
			continue;
		if (read(fd, &order, 1) != 1)
			return 0;
		if (at >= 0)
			close(at);
		at = order == 'o' ? bindsock("tcp", host, port) : -1;
		(void)!write(fd, &order, 1);
	}
	return 1;
}

/* ms until the port answers, or is refused. */
static long long
until(const char *port, int answer)
{
	long long t0 = nowms();
	struct timespec t = { 0, 500000 };
	char buf[64];

	while ((get("tcp", "127.0.0.1", port, buf) == 0) != answer && nowms() - t0 < 10000)
		nanosleep(&t, NULL);         /* nothing tells that a port of another process is open */
	return nowms() - t0;
}

static int
knock(int n, const char *control, const char *port)
{
	int fd = opensock("tcp", "127.0.0.1", control), i;
	long long t0, opened;
	char c;

	if (connect(fd, &addr.sa, addrlen) < 0)
		return 1;
	for (i = 0; i < n; i++) {
		t0 = nowms();
		if (write(fd, "o", 1) != 1 || read(fd, &c, 1) != 1)
			return 1;
		opened = nowms() - t0 + until(port, 1);
		t0 = nowms();
		if (write(fd, "c", 1) != 1 || read(fd, &c, 1) != 1)
			return 1;
		printf("%lld %lld\n", opened, nowms() - t0 + until(port, 0));
	}
	return 0;
}

static int
watch(char **paths, int n)
{
	_Alignas(struct inotify_event) char buf[4096];
	struct inotify_event *e;
	int fd = inotify_init(), i;
	ssize_t len, at;

	for (i = 0; i < n; i++)         /* the first one is number 1 */
		if (inotify_add_watch(fd, paths[i], IN_ATTRIB|IN_MODIFY|IN_CREATE|IN_CLOSE_WRITE) < 0)
			return 1;
	puts("ready");
	fflush(stdout);
	while ((len = read(fd, buf, sizeof buf)) > 0) {
		for (at = 0; at < len; at += (ssize_t)(sizeof *e + e->len)) {
			e = (struct inotify_event *)(void *)(buf + at);
			printf("%s %s %x\n", paths[e->wd - 1], e->len ? e->name : "-", e->mask);
		}
		fflush(stdout);
	}
	return 1;
}

int
main(int argc, char *argv[])
{
	char buf[64];
	int i, ok = 0;

	if (argc < 3)
		return 2;
	if (strcmp(argv[1], "get") == 0 && argc > 3) {
		if (get(argv[2], argv[3], argv[4], buf) < 0)
			return 1;
		fputs(buf, stdout);
		return 0;
	}
	if (strcmp(argv[1], "watch") == 0)
		return watch(argv + 2, argc - 2);
	if (strcmp(argv[1], "many") == 0 && argc == 5)
		return many((int)strtol(argv[2], NULL, 10), argv[3], argv[4]);
	if (strcmp(argv[1], "row") == 0 && argc == 5) {
		for (i = 0; i < strtol(argv[2], NULL, 10); i++)
			ok += get("tcp", argv[3], argv[4], buf) == 0;
		printf("%d\n", ok);
		return 0;
	}
	if (strcmp(argv[1], "pour") == 0 && argc == 5)
		return pour(argv[2], argv[3], strtol(argv[4], NULL, 10));
	if (strcmp(argv[1], "sink") == 0 && argc == 4)
		return sink(argv[2], argv[3]);
	if (strcmp(argv[1], "door") == 0 && argc == 5)
		return door(argv[2], argv[3], argv[4]);
	if (strcmp(argv[1], "knock") == 0 && argc == 5)
		return knock((int)strtol(argv[2], NULL, 10), argv[3], argv[4]);
	return serve(argv[1], argv[2], argv + 3, argc - 3);
}
