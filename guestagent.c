/* lima-guestagent - tell the host agent which ports the guest listens on
 *
 *	lima-guestagent daemon [PORT]   serve the host on a virtio-serial port
 *	lima-guestagent -1              print the listeners and exit
 *
 * Freestanding: no C library, so that one file of a few KB, built by any
 * compiler of the architecture, runs in every guest.  Needs Linux 3.x.
 *
 * What listens stands in /proc/net/{tcp,tcp6,udp,udp6} (proc(5)).  A listening
 * TCP socket has state 0A, an unconnected UDP socket 07 (tcp_states.h); a
 * dual-stack wildcard stands in tcp6 alone, as ::.  When to look is told by the
 * kernel: a perf event on the tracepoint sock:inet_sock_set_state, filtered for
 * TCP_LISTEN, and one on syscalls:sys_exit_bind for UDP.  The second makes every
 * system call a little slower and nothing reports the end of a UDP socket, so
 * the host says how much of UDP it wants.  Where there are no tracepoints we look
 * now and then.
 *
 * Lines, both ways, at most LINEMAX bytes.  From the host:
 *
 *	hello 1                 who we are and all listeners, then every change
 *	udp off | bind | poll   leave UDP out; look when bind(2) worked; also every 2 s
 *	time SEC NSEC           set the clock when it is wrong
 *	inotify SEC NSEC PATH   set the times of a file, which wakes who watches it
 *	ping, status
 *
 * To the host:
 *
 *	lima-guestagent 1       followed by
 *	begin                   ... + lines ... end: these and no others
 *	+ tcp 127.0.0.1 8080    a listener is new, or (-) gone
 *	time MS set|ok|failed   the clock was MS behind
 *	pong, status TEXT */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEN(a) (sizeof (a) / sizeof *(a))
#define MAXPORTS 4096                   /* more listeners than this are not reported */
#define MAXCPUS 256                     /* further ones are left to the safety poll */
#define LINEMAX 4608                    /* PATH_MAX and a little */

/* ---- patience, in milliseconds ---- */
enum {
	SAFETY = 30000,                 /* look also when the kernel says nothing */
	UDPTICK = 2000,                 /* the same while UDP is forwarded: its end is no event */
	ECHO = 40,                      /* look again this long after an event: it comes before the table shows it */
	TICKMIN = 250, TICKMAX = 3000,  /* without tracepoints: after a change, and after many looks without one */
	WRITEWAIT = 5000,               /* a host that reads nothing for so long is gone */
	OPENSOON = 50, OPENLATE = 5000, /* between two looks for the port, at first and after ten seconds */
	DRIFT = 100,                    /* a clock that is wrong by less stays */
};

/* ---- the kernel ---- */

#if defined __x86_64__
enum {
	SYSread = 0, SYSwrite = 1, SYSclose = 3, SYSlseek = 8, SYSmmap = 9, SYSioctl = 16, SYSexit = 231,
	SYSmount = 165, SYSgetdents64 = 217, SYSclock_settime = 227, SYSclock_gettime = 228, SYSnanosleep = 35,
	SYSopenat = 257, SYSutimensat = 280, SYSepoll_pwait = 281, SYSepoll_create1 = 291, SYSepoll_ctl = 233,
	SYSppoll = 271, SYSperf_event_open = 298,
};
struct event { uint32_t events; uint64_t data; } __attribute__((packed));
#define START "xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n"

static long
sys(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	    : "rcx", "r11", "memory");
	return r;
}
#elif defined __aarch64__ || (defined __riscv && __riscv_xlen == 64)
enum {                                  /* the numbers all newer architectures share */
	SYSread = 63, SYSwrite = 64, SYSclose = 57, SYSlseek = 62, SYSmmap = 222, SYSioctl = 29, SYSexit = 94,
	SYSmount = 40, SYSgetdents64 = 61, SYSclock_settime = 112, SYSclock_gettime = 113, SYSnanosleep = 101,
	SYSopenat = 56, SYSutimensat = 88, SYSepoll_pwait = 22, SYSepoll_create1 = 20, SYSepoll_ctl = 21,
	SYSppoll = 73, SYSperf_event_open = 241,
};
struct event { uint32_t events; uint64_t data; };
#if defined __aarch64__
#define START "mov x29,#0\n mov x0,sp\n bl begin\n"
#define SYSCALL "svc #0"
#define R(n) "x" #n
#define NR "x8"
#else
#define START ".option push\n .option norelax\n lla gp,__global_pointer$\n .option pop\n mv a0,sp\n call begin\n"
#define SYSCALL "ecall"
#define R(n) "a" #n
#define NR "a7"
#endif

static long
sys(long n, long a, long b, long c, long d, long e, long f)
{
	register long nr __asm__(NR) = n, r0 __asm__(R(0)) = a, r1 __asm__(R(1)) = b, r2 __asm__(R(2)) = c,
	    r3 __asm__(R(3)) = d, r4 __asm__(R(4)) = e, r5 __asm__(R(5)) = f;

	__asm__ volatile(SYSCALL : "+r"(r0) : "r"(nr), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
	return r0;
}
#else
#error "no system calls are known for this architecture"
#endif

#define S0(n) sys(n, 0, 0, 0, 0, 0, 0)
#define S1(n, a) sys(n, (long)(a), 0, 0, 0, 0, 0)
#define S2(n, a, b) sys(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define S3(n, a, b, c) sys(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define S4(n, a, b, c, d) sys(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define S5(n, a, b, c, d, e) sys(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define S6(n, a, b, c, d, e, f) sys(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* asm-generic/{fcntl,errno}.h, linux/{eventpoll,perf_event,time}.h: the same on
 * the three architectures */
enum {
	ATFDCWD = -100, NOFOLLOW = 0x100, ORDONLY = 0, OWRONLY = 1, ORDWR = 2, ONONBLOCK = 04000, OCLOEXEC = 02000000,
	EAGAIN = 11, EINTR = 4,
	EPOLLIN = 1, EPOLLOUT = 4, EPOLLHUP = 16, EPOLLADD = 1,
	REALTIME = 0, MONOTONIC = 1,
	PROTREAD = 1, MAPSHARED = 1,
	PERFTRACEPOINT = 2, PERFSETFILTER = 0x40082406, PERFENABLE = 0x2400, PERFDISABLE = 0x2401,
	ATNULL = 0, ATPAGESZ = 6,
};
#define EPOLLET (1u << 31)
struct timespec { long sec, nsec; };
struct perfattr {                       /* struct perf_event_attr, its first version */
	uint32_t type, size;
	uint64_t config, period, sampletype, readformat, flags;
	uint32_t wakeupevents, bptype;
	uint64_t bpaddr;
};

/* The compiler calls these two whatever it is told. */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *p, int c, size_t n);

void *
memcpy(void *to, const void *from, size_t n)
{
	volatile char *d = to;          /* or the loop becomes a call of memcpy */
	const char *s = from;

	while (n--)
		*d++ = *s++;
	return to;
}

void *
memset(void *p, int c, size_t n)
{
	volatile char *d = p;

	while (n--)
		*d++ = (char)c;
	return p;
}

static long long
nowms(void)
{
	struct timespec t = { 0, 0 };

	(void)S2(SYSclock_gettime, MONOTONIC, &t);
	return (long long)t.sec * 1000 + t.nsec / 1000000;
}

static void
pausems(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	(void)S2(SYSnanosleep, &t, NULL);
}

static int
openat(const char *path, int flags)
{
	return (int)S4(SYSopenat, ATFDCWD, path, flags|OCLOEXEC, 0);
}

/* ---- text ---- */

static size_t
length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

/* Does s begin with this word, alone or before a blank?  What follows, or NULL. */
static const char *
word(const char *s, const char *w)
{
	while (*w && *s == *w)
		s++, w++;
	return *w || (*s && *s != ' ') ? NULL : *s ? s + 1 : s;
}

/* A whole number at *s, which moves behind it and one blank; -1: none. */
static long long
number(const char **s)
{
	long long v = 0;
	const char *p = *s;

	for (; *p >= '0' && *p <= '9'; p++)
		if ((v = v * 10 + (*p - '0')) > 1LL << 52)
			return -1;
	if (p == *s || (*p && *p != ' '))
		return -1;
	*s = *p ? p + 1 : p;
	return v;
}

static char *
putstr(char *p, const char *s)
{
	while (*s)
		*p++ = *s++;
	return p;
}

static char *
putnum(char *p, long long n, unsigned base)
{
	char digits[24];
	unsigned long long v = n < 0 ? 0ULL - (unsigned long long)n : (unsigned long long)n;
	int i = 0;

	if (n < 0)
		*p++ = '-';
	do
		digits[i++] = "0123456789abcdef"[v % base];
	while (v /= base);
	while (i)
		*p++ = digits[--i];
	return p;
}

/* Up to n bytes of a small file, as a text; -1: there is none. */
static int
slurp(const char *path, char *buf, size_t n)
{
	int fd = openat(path, ORDONLY);
	long r;

	if (fd < 0)
		return -1;
	r = S3(SYSread, fd, buf, n - 1);
	(void)S1(SYSclose, fd);
	buf[r > 0 ? r : 0] = '\0';
	return r > 0 ? 0 : -1;
}

/* ---- listeners ---- */

struct port {
	bool udp, v6;
	uint16_t num;
	uint8_t addr[16];               /* as on the wire; 4 bytes of IPv4 */
};

/* n hexadecimal digits; -1 when they are none. */
static long long
hex(const char *s, int n)
{
	long long v = 0;
	int c;

	while (n--) {
		c = *s++;
		if (c >= '0' && c <= '9')
			c -= '0';
		else if (c >= 'A' && c <= 'F')
			c -= 'A' - 10;
		else if (c >= 'a' && c <= 'f')
			c -= 'a' - 10;
		else
			return -1;
		v = v << 4 | c;
	}
	return v;
}

/* Parse a line of a table, "sl: ADDR:PORT ADDR:PORT STATE ...", an address being
 * words in the machine's byte order; false when it is no listener. */
static bool
parseport(const char *s, bool udp, bool v6, struct port *p)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	int len = v6 ? 32 : 8, i;
	long long v;
	uint32_t w;

	memset(p, 0, sizeof *p);
	p->udp = udp;
	p->v6 = v6;
	while (*s == ' ' || (*s >= '0' && *s <= '9'))
		s++;
	if (s[0] != ':' || s[1] != ' ')
		return false;
	s += 2;
	for (i = 0; i < len / 8; i++, s += 8) {
		if ((v = hex(s, 8)) < 0)
			return false;
		w = (uint32_t)v;
		memcpy(p->addr + 4 * i, &w, 4);
	}
	if (*s != ':' || (v = hex(s + 1, 4)) <= 0)
		return false;
	p->num = (uint16_t)v;
	for (s += 5, i = 0; i < len + 7; i++)   /* the peer, with a blank at each end */
		if (!*s++)
			return false;
	if (hex(s, 2) != (udp ? 0x07 : 0x0a))
		return false;
	for (i = 0; v6 && i < 12 && p->addr[i] == mapped[i]; i++)
		;
	if (i == 12 && v6) {
		memcpy(p->addr, p->addr + 12, 4);
		memset(p->addr + 4, 0, 12);
		p->v6 = false;
	}
	return true;
}

static int
portcmp(const struct port *a, const struct port *b)
{
	int i;

	if (a->udp != b->udp)
		return a->udp - b->udp;
	if (a->num != b->num)
		return a->num - b->num;
	if (a->v6 != b->v6)
		return a->v6 - b->v6;
	for (i = 0; i < 16; i++)
		if (a->addr[i] != b->addr[i])
			return a->addr[i] - b->addr[i];
	return 0;
}

static void
sortports(struct port *v, size_t n)
{
	struct port t;
	size_t gap, i, k;

	for (gap = n / 2; gap; gap /= 2)
		for (i = gap; i < n; i++) {
			t = v[i];
			for (k = i; k >= gap && portcmp(&v[k - gap], &t) > 0; k -= gap)
				v[k] = v[k - gap];
			v[k] = t;
		}
}

/* Append the listeners of one table; a missing one (no IPv6) is empty.  In the
 * TCP tables listeners come first: the first other line ends them, so that
 * thousands of connections cost nothing. */
static size_t
readtable(const char *path, bool udp, bool v6, struct port *v, size_t n)
{
	char buf[2048], *line, *end;
	size_t have = 0, i;
	bool head = true;
	int fd = openat(path, ORDONLY);
	long r;

	if (fd < 0)
		return n;
	while ((r = S3(SYSread, fd, buf + have, sizeof buf - 1 - have)) > 0) {
		buf[have += (size_t)r] = '\0';
		for (line = buf; ; line = end + 1) {
			for (end = line; *end && *end != '\n'; end++)
				;
			if (!*end)
				break;
			*end = '\0';
			if (head)
				head = false;
			else if (n < MAXPORTS && parseport(line, udp, v6, &v[n]))
				n++;
			else if (!udp || n == MAXPORTS)
				goto out;
		}
		have = (size_t)(buf + have - line);
		if (have == sizeof buf - 1)
			break;                  /* no table has such lines */
		for (i = 0; i < have; i++)
			buf[i] = line[i];
	}
out:
	(void)S1(SYSclose, fd);
	return n;
}

/* All listeners, sorted, each once; how many. */
static size_t
readports(struct port *v, bool udp)
{
	size_t i, k, n;

	n = readtable("/proc/net/tcp", false, false, v, 0);
	n = readtable("/proc/net/tcp6", false, true, v, n);
	if (udp) {
		n = readtable("/proc/net/udp", true, false, v, n);
		n = readtable("/proc/net/udp6", true, true, v, n);
	}
	sortports(v, n);
	for (i = k = 0; i < n; i++)
		if (!k || portcmp(&v[k - 1], &v[i]) != 0)
			v[k++] = v[i];
	return k;
}

/* An IPv6 address: the longest run of zeros becomes "::". */
static char *
putv6(char *s, const uint8_t *a)
{
	int i, n, at = 8, best = 1;

	for (i = 0; i < 8; i += n + 1) {
		for (n = 0; i + n < 8 && !a[2 * (i + n)] && !a[2 * (i + n) + 1]; n++)
			;
		if (n > best) {
			best = n;
			at = i;
		}
	}
	for (i = 0; i < 8; i++) {
		if (i == at) {
			s = putstr(s, i ? ":" : "::");
			i += best - 1;
			continue;
		}
		s = putnum(s, a[2 * i] << 8 | a[2 * i + 1], 16);
		if (i < 7)
			*s++ = ':';
	}
	return s;
}

/* "+ tcp 127.0.0.1 8080\n", at most 64 bytes. */
static char *
putport(char *s, char sign, const struct port *p)
{
	int i;

	*s++ = sign;
	s = putstr(s, p->udp ? " udp " : " tcp ");
	if (p->v6)
		s = putv6(s, p->addr);
	else
		for (i = 0; i < 4; i++) {
			s = putnum(s, p->addr[i], 10);
			if (i < 3)
				*s++ = '.';
		}
	*s++ = ' ';
	s = putnum(s, p->num, 10);
	*s++ = '\n';
	return s;
}

/* ---- what the kernel tells ---- */

enum udpmode { UDPOFF, UDPBIND, UDPPOLL };
static int epfd = -1;
static long pagesize = 4096;
static int bindfds[MAXCPUS];            /* the events on bind, to switch off and on */
static int nbind;

static const char *const tracedirs[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };

/* The number of a tracepoint, "sock/inet_sock_set_state"; -1: there is none. */
static long
tracepoint(const char *name)
{
	char path[160], text[32];
	const char *p = text;
	size_t i;

	for (i = 0; i < LEN(tracedirs); i++) {
		*putstr(putstr(putstr(putstr(path, tracedirs[i]), "/events/"), name), "/id") = '\0';
		if (slurp(path, text, sizeof text) == 0) {
			for (i = 0; text[i] && text[i] != '\n'; i++)
				;
			text[i] = '\0';
			return (long)number(&p);
		}
	}
	return -1;
}

/* One event on one CPU, wired to epfd; -1 when the kernel has it not.  The buffer
 * is mapped for reading only, so the kernel writes over what is old, and nobody
 * has to read it: that it was written is all we want. */
static int
perfopen(long id, int cpu, const char *filter)
{
	struct perfattr a = { .type = PERFTRACEPOINT, .size = sizeof a, .config = (uint64_t)id, .period = 1, .wakeupevents = 1 };
	struct event ev = { .events = EPOLLIN, .data = 1 };
	int fd = (int)S5(SYSperf_event_open, &a, -1, cpu, -1, 8 /* close on exec */);
	long m;

	if (fd < 0)
		return -1;
	m = S6(SYSmmap, 0, 2 * pagesize, PROTREAD, MAPSHARED, fd, 0);
	if ((m < 0 && m > -4096) || S3(SYSioctl, fd, PERFSETFILTER, filter) < 0 || S4(SYSepoll_ctl, epfd, EPOLLADD, fd, &ev) < 0) {
		(void)S1(SYSclose, fd);
		return -1;
	}
	return fd;
}

/* An event on each CPU that is online ("0-3,5"); how many, 0: not to be had. */
static int
watch(const char *name, const char *filter, int *fds)
{
	long id = tracepoint(name);
	char list[256];
	const char *p = list;
	int n = 0, from, to, fd;

	if (id < 0 || slurp("/sys/devices/system/cpu/online", list, sizeof list) < 0)
		return 0;
	while (*p >= '0' && *p <= '9') {
		for (from = 0; *p >= '0' && *p <= '9' && from < 100000; p++)
			from = from * 10 + (*p - '0');
		to = from;
		if (*p == '-')
			for (to = 0, p++; *p >= '0' && *p <= '9' && to < 100000; p++)
				to = to * 10 + (*p - '0');
		for (; from <= to && n < MAXCPUS; from++) {
			if ((fd = perfopen(id, from, filter)) < 0)
				return 0;       /* what there is only wakes us: harmless */
			fds[n++] = fd;
		}
		p += *p == ',';
	}
	return n;
}

/* ---- the host ---- */

static int vport = -1;                  /* the virtio-serial port */
static bool host;                       /* it has said hello */
static struct port lists[2][MAXPORTS], *told = lists[0], *fresh = lists[1];
static size_t ntold;
static bool perf;                       /* the kernel tells of TCP, */
static bool bindperf;                   /* and of UDP */
static enum udpmode udp = UDPBIND;

/* Wait until the port takes more; false when the host went. */
static bool
waitwrite(void)
{
	struct { int fd; short events, revents; } p = { vport, EPOLLOUT, 0 };
	struct timespec t = { WRITEWAIT / 1000, 0 };
	long r = S5(SYSppoll, &p, 1, &t, NULL, 0);

	return r == -EINTR || (r > 0 && !(p.revents & EPOLLHUP));
}

/* Send it all; a host that is gone has to say hello again. */
static void
tell(const char *s, size_t n)
{
	long r;

	while (host && n) {
		r = S3(SYSwrite, vport, s, n);
		if (r > 0) {
			s += r;
			n -= (size_t)r;
		} else if (r != -EINTR && (r != -EAGAIN || !waitwrite()))
			host = false;
	}
}

/* Send what was and is no more (-), and what is new (+): both lists are sorted. */
static void
tellchanges(const struct port *old, size_t m, const struct port *new, size_t n)
{
	char buf[4096], *s = buf;
	size_t i = 0, k = 0;
	int c;

	while (host && (i < m || k < n)) {
		c = i == m ? 1 : k == n ? -1 : portcmp(&old[i], &new[k]);
		if (c < 0)
			s = putport(s, '-', &old[i++]);
		else if (c > 0)
			s = putport(s, '+', &new[k++]);
		else
			i++, k++;
		if (s > buf + sizeof buf - 64) {
			tell(buf, (size_t)(s - buf));
			s = buf;
		}
	}
	tell(buf, (size_t)(s - buf));
}

/* Look, and tell what changed; true when something did. */
static bool
look(void)
{
	struct port *t;
	size_t n = readports(fresh, udp != UDPOFF), i;
	bool same = n == ntold;

	for (i = 0; same && i < n; i++)
		same = portcmp(&told[i], &fresh[i]) == 0;
	if (same)
		return false;
	tellchanges(told, ntold, fresh, n);
	t = told;
	told = fresh;
	fresh = t;
	ntold = n;
	return true;
}

static void
sayline(const char *s)
{
	tell(s, length(s));
}

static void
hello(void)
{
	host = true;
	sayline("\nlima-guestagent 1\nbegin\n");
	ntold = 0;
	(void)look();
	sayline("end\n");
}

static void
setclock(const char *s)
{
	struct timespec t, is = { 0, 0 };
	long long sec = number(&s), nsec = number(&s), ms;
	const char *what = "ok";
	char buf[64], *p;

	if (sec < 0 || nsec < 0 || nsec > 999999999 || *s)
		return;
	t = (struct timespec){ (long)sec, (long)nsec };
	(void)S2(SYSclock_gettime, REALTIME, &is);
	ms = (sec - is.sec) * 1000 + (nsec - is.nsec) / 1000000;
	if (ms > DRIFT || ms < -DRIFT)
		what = S2(SYSclock_settime, REALTIME, &t) == 0 ? "set" : "failed";
	p = putstr(putnum(putstr(buf, "time "), ms, 10), " ");
	p = putstr(putstr(p, what), "\n");
	tell(buf, (size_t)(p - buf));
}

static void
touch(const char *s)
{
	long long sec = number(&s), nsec = number(&s);
	struct timespec t[2];

	if (sec < 0 || nsec < 0 || nsec > 999999999 || *s != '/')
		return;
	t[0] = t[1] = (struct timespec){ (long)sec, (long)nsec };
	(void)S4(SYSutimensat, ATFDCWD, s, t, NOFOLLOW);        /* a file that is gone again does not matter */
}

static void
setudp(enum udpmode mode)
{
	int i;

	udp = mode;
	if (mode != UDPOFF && !nbind)
		nbind = watch("syscalls/sys_exit_bind", "ret == 0", bindfds);
	bindperf = nbind && mode != UDPOFF;
	for (i = 0; i < nbind; i++)
		(void)S3(SYSioctl, bindfds[i], mode == UDPOFF ? PERFDISABLE : PERFENABLE, 0);
	(void)look();
}

static void
saystatus(void)
{
	static const char *const mode[] = { "off", "bind", "poll" };
	char buf[128], *p;

	p = putstr(putnum(putstr(buf, "status ports "), (long long)ntold, 10), " tcp ");
	p = putstr(putstr(p, perf ? "events" : "polled"), " udp ");
	p = putstr(p, mode[udp]);
	if (udp != UDPOFF)
		p = putstr(p, bindperf ? " events" : " polled");
	p = putstr(p, "\n");
	tell(buf, (size_t)(p - buf));
}

static void
heed(const char *line)
{
	const char *s;

	if ((s = word(line, "hello")))
		hello();
	else if (!host)
		return;
	else if ((s = word(line, "udp")))
		setudp(word(s, "off") ? UDPOFF : word(s, "poll") ? UDPPOLL : UDPBIND);
	else if ((s = word(line, "time")))
		setclock(s);
	else if ((s = word(line, "inotify")))
		touch(s);
	else if (word(line, "ping"))
		sayline("pong\n");
	else if (word(line, "status"))
		saystatus();
}

/* Read what there is.  Without a host it is nothing, and not the end. */
static void
readhost(void)
{
	static char line[LINEMAX];
	static size_t have;
	static bool skip;               /* the rest of a line that was too long */
	char buf[1024];
	long r, i;

	while ((r = S3(SYSread, vport, buf, sizeof buf)) > 0)
		for (i = 0; i < r; i++)
			if (buf[i] == '\n') {
				line[have] = '\0';
				if (!skip && have)
					heed(line);
				have = 0;
				skip = false;
			} else if (have == sizeof line - 1)
				skip = true;
			else
				line[have++] = buf[i];
	if (r == 0) {
		host = false;
		have = 0;
	}
}

/* Where udev is not, the port has its name in sysfs only.  In path. */
static void
findport(char path[64])
{
	static const char dir[] = "/sys/class/virtio-ports/";
	char ents[2048], name[320], text[32];
	int fd = openat("/sys/class/virtio-ports", ORDONLY);
	const char *d;
	long n = 0, at;

	while (fd >= 0 && (n = S3(SYSgetdents64, fd, ents, sizeof ents)) > 0)
		for (at = 0; at < n; at += *(const uint16_t *)(const void *)(ents + at + 16)) {
			d = ents + at + 19;             /* d_name of struct linux_dirent64 */
			if (*d == '.' || length(d) > 32)
				continue;
			*putstr(putstr(putstr(name, dir), d), "/name") = '\0';
			if (slurp(name, text, sizeof text) == 0 && word(text, "lima.agent\n"))
				*putstr(putstr(path, "/dev/"), d) = '\0';
		}
	if (fd >= 0)
		(void)S1(SYSclose, fd);
}

/* Open the port, which may come later than we: its driver is a module. */
static void
openport(const char *given)
{
	struct event ev = { .events = EPOLLIN|EPOLLOUT|EPOLLET, .data = 0 };
	long long start = nowms();
	char path[64];

	for (;;) {
		*putstr(path, "/dev/virtio-ports/lima.agent") = '\0';
		if ((vport = openat(given ? given : path, ORDWR|ONONBLOCK)) >= 0)
			break;
		findport(path);
		if (!given && (vport = openat(path, ORDWR|ONONBLOCK)) >= 0)
			break;
		pausems(nowms() - start < 10000 ? OPENSOON : OPENLATE);
	}
	/* by edges: a port without a host is in POLLHUP all the time, and tells
	 * by an edge when that ends */
	(void)S4(SYSepoll_ctl, epfd, EPOLLADD, vport, &ev);
}

/* Between two looks that nothing asked for. */
static long long
interval(long long tick)
{
	if (!perf || (udp != UDPOFF && !bindperf))
		return tick;
	return udp == UDPPOLL ? UDPTICK : SAFETY;
}

static void
serve(const char *given)
{
	static int tcpfds[MAXCPUS];
	struct event ev[16];
	long long next = 0, tick = TICKMIN, t, began, calm = 0;
	bool woken;
	long n, i;

	epfd = (int)S1(SYSepoll_create1, OCLOEXEC);
	openport(given);
	if (tracepoint("sock/inet_sock_set_state") < 0)
		(void)S5(SYSmount, "tracefs", tracedirs[0], "tracefs", 14 /* nosuid, nodev, noexec */, NULL);
	perf = watch("sock/inet_sock_set_state", "newstate==10||oldstate==10", tcpfds) > 0;
	for (;;) {
		t = nowms();
		/* without a host there is nobody to tell: its hello wakes us */
		n = S6(SYSepoll_pwait, epfd, ev, LEN(ev), !host ? -1 : next > t ? next - t : 0, NULL, 0);
		woken = false;
		for (i = 0; i < n; i++)
			if (ev[i].data == 1)
				woken = true;
			else
				readhost();
		if (!host)
			continue;
		t = nowms();
		if (!woken && t < next) {
			/* the host spoke, and may want other things now */
			if (next > t + interval(tick))
				next = t + interval(tick);
			continue;
		}
		if (t < calm)           /* a guest that opens and closes all the time gets a third of a CPU */
			pausems((long)(calm - t));
		began = nowms();
		tick = look() ? TICKMIN : tick * 2 < TICKMAX ? tick * 2 : TICKMAX;
		t = nowms();
		calm = t + 2 * (t - began);
		next = t + (woken ? ECHO : interval(tick));
	}
}

static int
once(void)
{
	char buf[64], *e;
	size_t n = readports(fresh, true), i;

	for (i = 0; i < n; i++) {
		e = putport(buf, '+', &fresh[i]);
		if (S3(SYSwrite, 1, buf, e - buf) < 0)
			return 1;
	}
	return 0;
}

/* sp: the stack as exec left it: argc, argv, environment, auxiliary vector. */
void begin(long *sp);

__attribute__((used)) void
begin(long *sp)
{
	static const char usage[] = "usage: lima-guestagent daemon [port] | -1\n";
	const char *const *argv = (const char *const *)(sp + 1);
	long *p = sp + 1 + *sp + 1, argc = *sp;
	int ret = 1;

	while (*p++)
		;
	for (; *p != ATNULL; p += 2)
		if (*p == ATPAGESZ)
			pagesize = p[1];
	if (argc == 2 && word(argv[1], "-1"))
		ret = once();
	else if ((argc == 2 || argc == 3) && word(argv[1], "daemon"))
		serve(argc == 3 ? argv[2] : NULL);
	else
		(void)S3(SYSwrite, 2, usage, sizeof usage - 1);
	for (;;)
		(void)S1(SYSexit, ret);
}

#ifndef FUZZ
__asm__(".text\n.globl _start\n_start:\n" START);
#endif
