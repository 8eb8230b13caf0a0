/* lima-guestagent - report which ports the guest listens on
 *
 * Reads /proc/net/{tcp,tcp6,udp,udp6} (proc(5)), which list every socket of the
 * network namespace as hexadecimal addresses, and prints one line a change:
 *
 *	+ tcp 127.0.0.1 8080
 *	- tcp 127.0.0.1 8080
 *
 * A listening TCP socket has state 0A (TCP_LISTEN), an unconnected UDP socket 07
 * (TCP_CLOSE), tcp_states.h.  A dual-stack wildcard stands in tcp6 alone, as ::.
 *
 *	lima-guestagent      print what is there, then changes, until stdout closes
 *	lima-guestagent -1   print what is there and exit */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEN(a) (sizeof (a) / sizeof *(a))
#define MAXPORTS 4096                   /* more listeners than this are not reported */
static const int tick = 3000;           /* ms between two looks */

struct port {
	bool udp, v6;
	uint16_t num;
	uint32_t addr[4];               /* as in the file: words in the machine's byte order */
};

/* Parse a line of a table; false when it is no listener. */
static bool
parseport(const char *line, bool udp, bool v6, struct port *p)
{
	char addr[33];
	unsigned num, state;
	int i;

	memset(p, 0, sizeof *p);
	if (sscanf(line, " %*u: %32[0-9A-Fa-f]:%4x %*32[0-9A-Fa-f]:%*4x %2x", addr, &num, &state) != 3)
		return false;
	if (state != (udp ? 0x07u : 0x0au) || strlen(addr) != (v6 ? 32u : 8u) || num == 0)
		return false;
	for (i = 0; i < (v6 ? 4 : 1); i++)
		if (sscanf(addr + 8 * i, "%8x", &p->addr[i]) != 1)
			return false;
	p->udp = udp;
	p->v6 = v6;
	p->num = (uint16_t)num;
	return true;
}

static int
portcmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct port));
}

/* All listeners, sorted, each once; how many.  A missing table (no IPv6) is empty. */
static size_t
readports(struct port *v)
{
	static const struct { const char *path; bool udp, v6; } t[] = {
		{ "/proc/net/tcp", false, false }, { "/proc/net/tcp6", false, true },
		{ "/proc/net/udp", true, false }, { "/proc/net/udp6", true, true },
	};
	char line[512];
	size_t i, k, n = 0;
	FILE *f;

	for (i = 0; i < LEN(t); i++) {
		if (!(f = fopen(t[i].path, "re")))
			continue;
		while (n < MAXPORTS && fgets(line, sizeof line, f))
			n += parseport(line, t[i].udp, t[i].v6, &v[n]);
		fclose(f);
	}
	qsort(v, n, sizeof *v, portcmp);
	for (i = k = 0; i < n; i++)
		if (!k || portcmp(&v[k - 1], &v[i]) != 0)
			v[k++] = v[i];
	return k;
}

static void
say(char sign, const struct port *p)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(p->v6 ? AF_INET6 : AF_INET, p->addr, text, sizeof text);
	printf("%c %s %s %u\n", sign, p->udp ? "udp" : "tcp", text, (unsigned)p->num);
}

/* Print what was and is no more, and what is new: both lists are sorted. */
static void
saychanges(const struct port *old, size_t m, const struct port *new, size_t n)
{
	size_t i = 0, k = 0;
	int c;

	while (i < m || k < n) {
		c = i == m ? 1 : k == n ? -1 : portcmp(&old[i], &new[k]);
		if (c < 0)
			say('-', &old[i++]);
		else if (c > 0)
			say('+', &new[k++]);
		else
			i++, k++;
	}
}

int
main(int argc, char *argv[])
{
	static struct port a[MAXPORTS + 1], b[MAXPORTS + 1];
	struct port *old = a, *new = b, *t;
	struct pollfd p = { .fd = 1, .events = 0 };
	size_t m = 0, n;
	bool once = argc == 2 && strcmp(argv[1], "-1") == 0;

	if (argc > 1 && !once) {
		fprintf(stderr, "usage: %s [-1]\n", argv[0]);
		return 1;
	}
	do {
		n = readports(new);
		saychanges(old, m, new, n);
		if (fflush(stdout) != 0)
			return 1;
		t = old;
		old = new;
		new = t;
		m = n;
		/* an event on stdout is its reader's end */
	} while (!once && poll(&p, 1, tick) == 0);
	return 0;
}
