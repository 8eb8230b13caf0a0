/* lima - create, boot and supervise Linux virtual machines
 *
 * One program, several processes.  `limactl start` makes an instance directory
 * below LIMA_HOME, prepares its disk, and starts a host agent: limactl again,
 * as `limactl hostagent NAME`, in a session of its own.  The host agent starts
 * QEMU, follows the guest's console (serial.log), holds one ssh master, and
 * serves ha.sock; it is one poll(2) loop whose states and events are a table.
 * What it learns goes as JSON lines to ha.stdout.log (events) and ha.stderr.log
 * (log); start follows these two files and returns when they say `running`.
 *
 * A configuration goes one way: text, node tree (yaml.c), struct conf through
 * the one table `confkeys`, and the gate of plain mode last.
 *
 * What is true is asked of the kernel: the host agent holds a lock on ha.pid,
 * QEMU one on qemu.pid, and both die with their holder.  A killed host agent
 * leaves QEMU and the ssh master running; the next start adopts them.
 * An instance is built in a hidden directory and renamed when whole, files are
 * replaced by rename: a crash leaves the old or the new and no half of either.
 *
 * Memory: a command lives for seconds, so what it takes hangs on `perm` until
 * exit; the host agent frees what it takes in its loop.
 *
 * Contents, with a budget of lines
 *	  1. Types and globals              20
 *	  2. Messages                      330
 *	  3. Memory, strings, numbers      400
 *	  4. Files                         340
 *	  5. Processes                     300
 *	  6. SHA-256 and inflate           300
 *	  7. Host                          300
 *	  8. Text templates                900
 *	  9. Configuration                1480
 *	 10. Validation                    940
 *	 11. Expressions                  1400
 *	 12. Instances                     450
 *	 13. Images                       1140
 *	 14. Template locators            1100
 *	 15. ISO 9660                      280
 *	 16. Guest data                    550
 *	 17. ssh                           330
 *	 18. Disks                         150
 *	 19. Networks                      250
 *	 20. SFTP server                  1100
 *	 21. QEMU                          460
 *	 22. QMP                           150
 *	 23. The loop                      250
 *	 24. Mounts                        660
 *	 25. Guest agent                   540
 *	 26. Port forwards                 950
 *	 27. Host agent                   1670
 *	 28. Following a start             400
 *	 29. Command line                  750
 *	 30. Editing and prompts           250
 *	 31. Creating and starting         700
 *	 32. Listing                       300
 *	 33. shell and copy                890
 *	 34. Other commands               2230
 *	 35. main                          250
 */
#define _GNU_SOURCE
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <netinet/in.h>

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "yaml.c"

/* ---- 1. Types and globals ----------------------------------------------- */

#define LEN(a)          (sizeof (a) / sizeof *(a))
#define PRINTF(f, a)    __attribute__((format(printf, f, a)))
#define FAKEVERSION     "2.2.0" /* the limactl whose behaviour ours is measured by */
#define UNIXPATHMAX     108     /* sizeof sun_path, unix(7) */
#define PORTMAX         4096    /* listeners of one guest: guestagent.c's MAXPORTS */

#include "config.h"
#include "embed.h"              /* made by the Makefile: struct embed embeds[] */

static struct yarena perm;      /* what a command keeps until it exits */
static volatile sig_atomic_t gotsig;    /* the signal that asked a command to end */

/* ---- 2. Messages -------------------------------------------------------- */

/* Everything but requested data is a log line on stderr, in the shape of
 * spec/cli.md 2.1: text, text for a terminal, or JSON.  One line is one write:
 * processes share these files and pieces would mix. */

enum level { TRACE, DEBUG, INFO, WARN, ERROR, FATAL, PANIC };
static const struct {
	const char *name, *tag;
	int colour;             /* SGR */
} levels[] = {
	{ "trace",   "TRAC", 37 }, { "debug", "DEBU", 37 }, { "info",  "INFO", 36 },
	{ "warning", "WARN", 33 }, { "error", "ERRO", 31 }, { "fatal", "FATA", 31 },
	{ "panic",   "PANI", 31 },
};
struct field { const char *key, *val; };        /* further key=value of a line */

static struct {
	enum level min;         /* lines below this are dropped */
	bool json, tty;
	bool mono;              /* no colours on a terminal */
	long long t0;           /* start of the program, ms */
	bool status;            /* a status line stands on the terminal */
	bool nopipe;            /* SIGPIPE was ignored when we were started */
	long long cap;          /* a log on stderr that grew beyond takes errors alone; 0: any */
} msg = { .min = INFO };

/* Milliseconds of a clock that only goes forward. */
static long long
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* RFC 3339 with digits (0 or 9) of a second's fraction, local offset. */
static void
timestamp(char *out, size_t size, int digits)
{
	struct timespec ts;
	struct tm tm;
	size_t n;
	long off;

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	if (digits)
		n += (size_t)snprintf(out + n, size - n, ".%09ld", ts.tv_nsec);
	if ((off = tm.tm_gmtoff) == 0)
		snprintf(out + n, size - n, "Z");
	else
		snprintf(out + n, size - n, "%c%02ld:%02ld", off < 0 ? '-' : '+',
		    labs(off) / 3600, labs(off) / 60 % 60);
}

/* A value of a text line: bare when every character is harmless. */
static void
logvalue(struct buf *b, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	uint32_t u;
	size_t k;

	if (s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._/@^+")] == '\0') {
		bufputs(b, s);
		return;
	}
	bufputc(b, '"');
	for (; *p; p++)
		if (*p == '"' || *p == '\\')
			bufprintf(b, "\\%c", *p);
		else if (*p == '\n')
			bufputs(b, "\\n");
		else if (*p == '\t')
			bufputs(b, "\\t");
		else if (*p == '\r')
			bufputs(b, "\\r");
		else if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && !(k = yutf8((const char *)p, strlen((const char *)p), &u))))
			bufprintf(b, "\\x%02x", *p);
		else if (*p < 0x80)
			bufputc(b, *p);
		else {
			bufadd(b, (const char *)p, k);
			p += k - 1;
		}
	bufputc(b, '"');
}

static int
fieldcmp(const void *a, const void *b)
{
	return strcmp(((const struct field *)a)->key, ((const struct field *)b)->key);
}

static void
logjson(struct buf *b, enum level lv, const char *text, const struct field *f)
{
	struct field all[16];
	char ts[64];
	size_t n = 0, i;

	timestamp(ts, sizeof ts, 0);
	for (; f && f->key && n < LEN(all) - 3; f++)
		all[n++] = *f;
	all[n++] = (struct field){ "level", levels[lv].name };
	all[n++] = (struct field){ "msg", text };
	all[n++] = (struct field){ "time", ts };
	qsort(all, n, sizeof *all, fieldcmp);
	for (i = 0; i < n; i++) {
		bufputc(b, i ? ',' : '{');
		yjsonstr(b, all[i].key, strlen(all[i].key));
		bufputc(b, ':');
		yjsonstr(b, all[i].val, strlen(all[i].val));
	}
	bufputc(b, '}');
}

static void
putcoloured(struct buf *b, int colour, const char *s)
{
	if (msg.mono)
		bufputs(b, s);
	else
		bufprintf(b, "\033[%dm%s\033[0m", colour, s);
}

static void
logterm(struct buf *b, enum level lv, const char *text, const struct field *f)
{
	size_t n = strlen(text);
	int c = levels[lv].colour;

	if (msg.status)
		bufputs(b, "\r\033[K");
	msg.status = false;
	putcoloured(b, c, levels[lv].tag);
	bufprintf(b, "[%04lld] ", (now() - msg.t0) / 1000);
	/* files, servers and guests have a part in texts, and no word to say to a terminal */
	for (; *text; text++)
		bufputc(b, ((unsigned char)*text < 0x20 && !strchr("\n\t", *text)) || *text == 0x7f ? '.' : *text);
	if (f && f->key && n < 44)
		bufprintf(b, "%*s", (int)(44 - n), "");
	for (; f && f->key; f++) {
		bufputc(b, ' ');
		putcoloured(b, c, f->key);
		bufputc(b, '=');
		logvalue(b, f->val);
	}
}

static void
logtext(struct buf *b, enum level lv, const char *text, const struct field *f)
{
	char ts[64];

	timestamp(ts, sizeof ts, 0);
	bufprintf(b, "time=\"%s\" level=%s", ts, levels[lv].name);
	if (*text) {
		bufputs(b, " msg=");
		logvalue(b, text);
	}
	for (; f && f->key; f++) {
		bufprintf(b, " %s=", f->key);
		logvalue(b, f->val);
	}
}

/* One log line.  f: further fields, ended by a NULL key, or NULL. */
static void
logline(enum level lv, const struct field *f, const char *text)
{
	struct buf b = { 0 };
	struct stat st;
	int e = errno;

	if (lv < msg.min || (msg.cap && lv < ERROR && fstat(2, &st) == 0 && st.st_size > msg.cap))
		return;
	if (msg.json)
		logjson(&b, lv, text, f);
	else if (msg.tty)
		logterm(&b, lv, text, f);
	else
		logtext(&b, lv, text, f);
	bufputc(&b, '\n');
	if (write(2, b.s, b.len) < 0) {
		/* nobody reads stderr: nothing left to tell it on */
	}
	buffree(&b);
	errno = e;
}

/* What an errno says, as limactl writes it: in lower case. */
static const char *
errtext(int e)
{
	static char s[96];
	const char *t = strerror(e);

	snprintf(s, sizeof s, "%s", t);
	if (*s && islower((unsigned char)s[1]))
		*s = (char)tolower((unsigned char)*s);
	return s;
}

/* Format and log.  A format of level warning or worse that ends in a colon gets
 * errtext(errno) appended; a value that does, as a line of the guest's, not. */
static void
vsay(enum level lv, const char *fmt, va_list ap)
{
	struct buf b = { 0 };
	int e = errno;          /* stdio may change it */
	char small[512];
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(small, sizeof small, fmt, ap);
	if (n >= (int)sizeof small) {
		b.s = malloc((size_t)n + 1);
		if (b.s)
			vsnprintf(b.s, (size_t)n + 1, fmt, again);
		b.cap = b.s ? (size_t)n + 1 : 0;
		b.len = b.s ? (size_t)n : 0;
	}
	va_end(again);
	if (!b.s)
		bufputs(&b, small);
	if (lv >= WARN && *fmt && fmt[strlen(fmt) - 1] == ':')
		bufprintf(&b, " %s", errtext(e));
	logline(lv, NULL, b.s ? b.s : "");
	buffree(&b);
	errno = e;
}

#define SAY(name, lv) \
static void PRINTF(1, 2) \
name(const char *fmt, ...) \
{ \
	va_list ap; \
	va_start(ap, fmt); \
	vsay(lv, fmt, ap); \
	va_end(ap); \
}
SAY(debug, DEBUG)
SAY(info, INFO)
SAY(warn, WARN)
SAY(error, ERROR)

/* Report and end the command; atexit removes what was half made. */
static _Noreturn void PRINTF(1, 2)
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(FATAL, fmt, ap);
	va_end(ap);
	exit(1);
}

/* Standard output could not be written.  When nobody reads it any more we end as
 * others do in a pipe: without a word, by the signal, unless it was ignored. */
static _Noreturn void
outfailed(void)
{
	if (errno == EPIPE && !msg.nopipe) {
		signal(SIGPIPE, SIG_DFL);
		raise(SIGPIPE);
	}
	die("write standard output:");
}

/* A passing line on a terminal, overwritten by the next line; on anything else
 * nothing, for the log lines tell the stages there. */
static void PRINTF(1, 2)
status(const char *fmt, ...)
{
	struct buf b = { 0 };
	struct winsize w;
	char text[512], secs[32];
	va_list ap;
	int n;

	if (!msg.tty || msg.json || msg.min > INFO)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	n = snprintf(secs, sizeof secs, "%4lld s", (now() - msg.t0) / 1000);
	/* a line that wraps is not overwritten; the last column wraps too */
	if (ioctl(2, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_col < sizeof text)
		text[w.ws_col > n + 2 ? w.ws_col - n - 2 : 0] = '\0';
	bufputs(&b, "\r\033[K");
	putcoloured(&b, 36, secs);
	bufprintf(&b, " %s", text);
	if (write(2, b.s, b.len) >= 0)
		msg.status = true;
	buffree(&b);
}

/* A value of a message in backquotes, or in escaped double quotes when it has a
 * backquote or a control character (spec/cli.md 0).  Good until eight more. */
static const char *
bq(const char *s)
{
	static struct buf ring[8];
	static unsigned turn;
	struct buf *b = &ring[turn++ % LEN(ring)];
	const unsigned char *p;
	bool bad = false;

	for (p = (const unsigned char *)s; *p; p++)
		bad |= *p == '`' || *p == 0x7f || (*p < 0x20 && *p != '\t');
	b->len = 0;
	if (bad)
		yjsonstr(b, s, strlen(s));
	else
		bufprintf(b, "`%s`", s);
	return b->s;
}

/* ---- 3. Memory, strings, numbers ---------------------------------------- */

static void *
xrealloc(void *p, size_t n, size_t size)
{
	if (n && size > SIZE_MAX / n)
		die("out of memory");
	if (!(p = realloc(p, n && size ? n * size : 1)))
		die("out of memory");
	return p;
}

/* Text of the life of the command. */
static char * PRINTF(1, 2)
keep(const char *fmt, ...)
{
	char small[256], *s;
	va_list ap, again;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(small, sizeof small, fmt, ap);
	va_end(ap);
	s = yalloc(&perm, (size_t)n + 1);
	if ((size_t)n < sizeof small)
		memcpy(s, small, (size_t)n + 1);
	else
		vsnprintf(s, (size_t)n + 1, fmt, again);
	va_end(again);
	return s;
}

/* The text of a buffer, "" of an empty one, for the life of the command; the
 * buffer is freed. */
static char *
bufkeep(struct buf *b)
{
	char *s = ystrndup(&perm, b->s, b->len);

	buffree(b);
	return s;
}

struct strs  { const char **v; size_t n; };

/* Add a text to a list that nothing else adds to.  It doubles on perm. */
static void
stradd(struct strs *s, const char *text)
{
	const char **v;

	if ((s->n & (s->n - 1)) == 0) {
		v = yalloc(&perm, (s->n * 2 + 1) * sizeof *v);
		if (s->n)
			memcpy(v, s->v, s->n * sizeof *v);
		s->v = v;
	}
	s->v[s->n++] = text;
}

static bool
startswith(const char *s, const char *head)
{
	return strncmp(s, head, strlen(head)) == 0;
}

static bool
endswith(const char *s, const char *tail)
{
	size_t n = strlen(s), m = strlen(tail);

	return n >= m && strcmp(s + n - m, tail) == 0;
}

/* A variable of the environment, or what stands for it when it is empty. */
static const char *
envor(const char *var, const char *other)
{
	const char *s = getenv(var);

	return s && *s ? s : other;
}

/* Cut blanks and newlines off the end of a text. */
static char *
chomp(char *s)
{
	size_t n = strlen(s);

	while (n && isspace((unsigned char)s[n - 1]))
		s[--n] = '\0';
	return s;
}

/* Whole string, decimal, in range; strtoll alone takes " 7", "+7" and "7x". */
static int
parsenum(const char *s, long long min, long long max, long long *out)
{
	char *end;
	long long v;

	if (!isdigit((unsigned char)s[s[0] == '-']))
		return -1;
	errno = 0;
	v = strtoll(s, &end, 10);
	if (*end || errno || v < min || v > max)
		return -1;
	*out = v;
	return 0;
}

/* At most n numbers with a dot between them, at the start of s; how many there
 * were.  end: what follows them, or NULL. */
static int
dotted(const char *s, int n, long long *v, const char **end)
{
	char word[10];
	size_t len;
	int i;

	for (i = 0; i < n; i++) {
		const char *p = s + (i && *s == '.');
		len = strspn(p, "0123456789");
		if ((i && p == s) || len >= sizeof word)
			break;
		snprintf(word, sizeof word, "%.*s", (int)len, p);
		if (parsenum(word, 0, LLONG_MAX, &v[i]) < 0)
			break;
		s = p + len;
	}
	if (end)
		*end = s;
	return i;
}

static bool
wordchar(int c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* How many letters, digits and _ s begins with. */
static size_t
wordlen(const char *s)
{
	size_t n = 0;

	while (wordchar(s[n]))
		n++;
	return n;
}

/* The next word of a line, NULL at its end. */
static char *
nextword(char **line)
{
	char *w;

	while ((w = strsep(line, " \t")) && !*w)
		;
	return w;
}

/* A size as of spec/config.md 4: number, one blank at most, binary unit.  On
 * failure -1 and the reason in err (a buffer of 128). */
static int
parsesize(const char *s, long long *out, char *err)
{
	static const char units[] = "bkmgtp";
	char suffix[8] = "", *end;
	const char *u, *p = s + strspn(s, "0123456789.eE+");
	double v;
	size_t i;

	/* an exponent needs digits: in "4E" the E is a suffix, and a bad one */
	while (p > s && !isdigit((unsigned char)p[-1]) && p[-1] != '.')
		p--;
	if (p == s || !(isdigit((unsigned char)*s) || *s == '.') || (p == s + 1 && *s == '.')) {
		snprintf(err, 128, "invalid size: '%.90s'", s);
		return -1;
	}
	v = strtod(s, &end);
	if (end != p) {
		snprintf(err, 128, "invalid size: '%.90s'", s);
		return -1;
	}
	if (*p == ' ')
		p++;
	for (i = 0; i < sizeof suffix - 1 && p[i]; i++)
		suffix[i] = (char)tolower((unsigned char)p[i]);
	u = *suffix ? strchr(units, *suffix) : units;
	if (!u || strlen(p) > 3 || (*suffix == 'b' && suffix[1]) ||
	    (*suffix && *suffix != 'b' && suffix[1] && strcmp(suffix + 1, "b") != 0 && strcmp(suffix + 1, "ib") != 0)) {
		snprintf(err, 128, "invalid suffix: '%.90s'", strlen(p) <= 3 ? suffix : p);
		return -1;
	}
	for (; u > units; u--)
		v *= 1024;
	if (!(v < 9.2e18)) {
		snprintf(err, 128, "invalid size: '%.90s'", s);
		return -1;
	}
	*out = (long long)v;
	return 0;
}

/* 4294967296 -> 4GiB; four significant digits. */
static const char *
printsize(long long n)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	double v = (double)n;
	size_t i;

	for (i = 0; v >= 1024 && i < LEN(unit) - 1; i++)
		v /= 1024;
	return keep("%.4g%s", v, unit[i]);
}

/* A word the remote shell reads back exactly (spec/cli.md 9.4.2). */
static void
bufquote(struct buf *b, const char *s)
{
	if (*s && s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-")] == '\0') {
		bufputs(b, s);
		return;
	}
	bufputc(b, '\'');
	for (; *s; s++)
		if (*s == '\'')
			bufputs(b, "'\"'\"'");
		else
			bufputc(b, *s);
	bufputc(b, '\'');
}

/* Bytes of the guest made fit for a terminal or a log: printable characters pass,
 * colours vanish, the rest becomes a dot. */
static void
bufsafe(struct buf *b, const char *str, size_t n)
{
	const unsigned char *s = (const unsigned char *)str;
	size_t i, k, len;

	for (i = 0; i < n; i += len) {
		len = s[i] < 0x80 ? 1 : s[i] >= 0xf0 ? 4 : s[i] >= 0xe0 ? 3 : 2;
		for (k = 1; k < len && i + k < n && (s[i + k] & 0xc0) == 0x80; k++)
			;
		if (s[i] == '\033' && i + 1 < n && s[i + 1] == '[') {
			for (len = 2; i + len < n && !isalpha(s[i + len]); len++)
				;
			len++;
		} else if (len == 1 ? s[i] >= 0x20 && s[i] != 0x7f :
		    /* whole, no stray tail, and no C1 control (U+0080-U+009F) */
		    k == len && s[i] >= 0xc2 && s[i] < 0xf8 && !(s[i] == 0xc2 && s[i + 1] < 0xa0)) {
			bufadd(b, s + i, len);
		} else {
			bufputc(b, '.');
			len = 1;
		}
	}
}

/* argv, grown word by word, NULL at its end. */
struct args { char **v; size_t n, cap; };

static void PRINTF(2, 0)
argadd(struct args *a, const char *fmt, va_list ap)
{
	char *s = NULL;

	if (vasprintf(&s, fmt, ap) < 0)
		die("out of memory");
	if (a->n + 2 > a->cap)
		a->v = xrealloc(a->v, a->cap = a->cap * 2 + 16, sizeof *a->v);
	a->v[a->n++] = s;
	a->v[a->n] = NULL;
}

static void PRINTF(2, 3)
arg(struct args *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	argadd(a, fmt, ap);
	va_end(ap);
}

/* An option and, as a word of its own, its value. */
static void PRINTF(3, 4)
argopt(struct args *a, const char *option, const char *fmt, ...)
{
	va_list ap;

	arg(a, "%s", option);
	va_start(ap, fmt);
	argadd(a, fmt, ap);
	va_end(ap);
}

/* Words separated by one blank each. */
static void
argwords(struct args *a, const char *words)
{
	size_t n;

	for (; *words; words += n + (words[n] == ' ')) {
		n = strcspn(words, " ");
		arg(a, "%.*s", (int)n, words);
	}
}

static void
argsfree(struct args *a)
{
	while (a->n)
		free(a->v[--a->n]);
	free(a->v);
	*a = (struct args){ 0 };
}

/* The words of a command line as a shell would split it: blanks, quotes and
 * backslashes, and nothing more.  False: a quote is not closed. */
static bool
shellwords(struct args *a, const char *s)
{
	struct buf b = { 0 };
	char quote = 0;
	bool word = false;

	for (; *s; s++) {
		if (quote ? *s == quote : *s == '"' || *s == '\'') {
			quote = quote ? 0 : *s;
			word = true;
		} else if (*s == '\\' && quote != '\'' && s[1] && (!quote || strchr("\"\\$`", s[1]))) {
			bufputc(&b, *++s);
			word = true;
		} else if (quote || !isspace((unsigned char)*s)) {
			bufputc(&b, *s);
			word = true;
		}
		if (word && (!s[1] || (!quote && isspace((unsigned char)s[1])))) {
			arg(a, "%s", b.s ? b.s : "");
			b.len = 0;
			if (b.s)
				*b.s = '\0';
			word = false;
		}
	}
	buffree(&b);
	return !quote;
}

/* Is s one of n words? */
static bool
oneof(const char *s, const char *const *words, size_t n)
{
	while (n && strcmp(*words, s) != 0)
		words++, n--;
	return n != 0;
}

/* Edit distance of at most 2, or one is the head of the other. */
static bool
similar(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), i, k, d[32], up, diag;

	if (n >= LEN(d) || m >= LEN(d))
		return false;
	if (startswith(b, a))
		return true;
	for (k = 0; k <= m; k++)
		d[k] = k;
	for (i = 1; i <= n; i++) {
		diag = d[0];
		d[0] = i;
		for (k = 1; k <= m; k++) {
			up = d[k];
			d[k] = a[i - 1] == b[k - 1] ? diag : 1 + (diag < up ? diag : up);
			if (d[k] > d[k - 1] + 1)
				d[k] = d[k - 1] + 1;
			diag = up;
		}
	}
	return d[m] <= 2;
}

/* ---- 4. Files ----------------------------------------------------------- */

/* Write all of it; -1 with errno. */
static int
writeall(int fd, const void *p, size_t n)
{
	const char *s = p;
	ssize_t w;

	while (n) {
		if ((w = write(fd, s, n)) < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		s += w;
		n -= (size_t)w;
	}
	return 0;
}

/* All that fd has, at most max bytes (more is EFBIG), appended to b. */
static int
readall(int fd, struct buf *b, size_t max)
{
	char chunk[16384];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof chunk)) != 0) {
		if (n < 0) {
			if (errno == EINTR && !gotsig)
				continue;
			return -1;
		}
		if (b->len + (size_t)n > max) {
			errno = EFBIG;
			return -1;
		}
		bufadd(b, chunk, (size_t)n);
	}
	if (!b->s)
		bufputs(b, "");
	return 0;
}

/* A file's content appended to b; -1 with errno. */
static int
readfile(const char *path, struct buf *b, size_t max)
{
	/* musl's open(3) sets close-on-exec once more, by a call of its own */
	int fd = openat(AT_FDCWD, path, O_RDONLY|O_CLOEXEC|O_NOCTTY), r, e;

	if (fd < 0)
		return -1;
	r = readall(fd, b, max);
	e = errno;
	close(fd);
	errno = e;
	return r;
}

/* A small text file, end trimmed, for the life of the command; NULL with errno. */
static char *
readline1(const char *path)
{
	struct buf b = { 0 };
	char *s = NULL;

	if (readfile(path, &b, 65536) == 0)
		s = chomp(keep("%s", b.s));
	buffree(&b);
	return s;
}

/* Replace path as a whole: a reader, or a crash, sees the old file or the new
 * one and never half of either.  NULL, or what failed, with errno. */
static const char *
putfile(const char *path, const void *data, size_t len, mode_t mode)
{
	struct buf tmp = { 0 };
	const char *failed = NULL;
	int fd, e;

	bufprintf(&tmp, "%s.%ld.tmp", path, (long)getpid());
	(void)unlink(tmp.s);    /* left by a dead process that had our pid */
	if ((fd = open(tmp.s, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600)) < 0)
		failed = "create";
	else if (writeall(fd, data, len) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0)
		failed = "write";
	else if (rename(tmp.s, path) < 0)
		failed = "replace";
	e = errno;
	if (fd >= 0 && failed)
		(void)unlink(tmp.s);
	if (fd >= 0)
		close(fd);
	buffree(&tmp);
	errno = e;
	return failed;
}

static int
writefile(const char *path, const void *data, size_t len, mode_t mode)
{
	const char *failed = putfile(path, data, len, mode);

	if (failed)
		error("%s %s:", failed, path);
	return failed ? -1 : 0;
}

/* The same for a file that the user names, or a command's result: links are
 * followed, a device or a pipe is written to.  It works, or the command ends. */
static void
mustwrite(const char *path, const void *data, size_t len, mode_t mode)
{
	char *real = realpath(path, NULL);
	const char *failed = "open";
	struct stat st;
	int fd;

	if (real && stat(real, &st) == 0 && !S_ISREG(st.st_mode)) {
		if ((fd = open(path, O_WRONLY|O_CLOEXEC|O_NOCTTY)) >= 0)
			failed = writeall(fd, data, len) < 0 || close(fd) < 0 ? "write" : NULL;
	} else
		failed = putfile(real ? real : path, data, len, mode);
	if (failed)
		die("%s %s:", failed, path);
	free(real);
}

/* mkdir -p; existing directories keep their mode.  -1 with errno. */
static int
mkdirs(const char *path, mode_t mode)
{
	struct buf b = { 0 };
	char *p;
	int r = 0, e;

	bufputs(&b, path);
	for (p = b.s + 1; r == 0 && (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		if (mkdir(b.s, mode) < 0 && errno != EEXIST) {
			e = errno;      /* EROFS and EACCES do not matter where it is there */
			r = access(b.s, F_OK) < 0 ? -1 : 0;
			errno = e;
		}
	}
	if (r == 0 && mkdir(path, mode) < 0 && errno != EEXIST)
		r = -1;
	e = errno;
	buffree(&b);
	errno = e;
	return r;
}

/* Remove the directory NAME below dirfd with all it holds, staying on the file
 * system dev and never following a link.  -1 with errno of the first failure. */
static int
rmat(int dirfd, const char *name, dev_t dev)
{
	struct dirent *d;
	struct stat st;
	DIR *dir;
	int fd, e = 0;

	fd = openat(dirfd, name, O_RDONLY|O_DIRECTORY|O_NOFOLLOW|O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0 || st.st_dev != dev || !(dir = fdopendir(fd))) {
		e = st.st_dev != dev ? EXDEV : errno;
		close(fd);
		errno = e;
		return -1;
	}
	while ((d = readdir(dir))) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (unlinkat(fd, d->d_name, 0) == 0)
			continue;
		if ((errno != EISDIR && errno != EPERM) || rmat(fd, d->d_name, dev) < 0)
			e = e ? e : errno;
	}
	closedir(dir);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
		e = e ? e : errno;
	errno = e;
	return e ? -1 : 0;
}

static int
rmtree(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -1;
	return rmat(AT_FDCWD, path, st.st_dev);
}

/* Directories that die, a signal or a failure must not leave behind: an
 * instance in the making, and an image in the making for it. */
static const char *scratch[2];

static void
scratchadd(const char *path)
{
	scratch[scratch[0] != NULL] = path;
}

/* Forget the newest one: it is whole, or removed. */
static void
scratchdrop(void)
{
	scratch[scratch[1] != NULL] = NULL;
}

static void
rmscratch(void)
{
	size_t i;

	for (i = 0; i < LEN(scratch); i++)
		if (scratch[i] && rmtree(scratch[i]) < 0)
			warn("remove %s:", scratch[i]);
}

/* Copy what is not a hole. */
static int
copysparse(int in, int out)
{
	struct stat st;
	off_t at = 0, end;
	char *chunk;
	ssize_t n = 0;

	if (fstat(in, &st) < 0 || ftruncate(out, st.st_size) < 0)
		return -1;
	chunk = xrealloc(NULL, 1, 1 << 20);
	while (at < st.st_size && !gotsig) {
		if ((at = lseek(in, at, SEEK_DATA)) < 0) {
			at = errno == ENXIO ? st.st_size : -1;
			break;
		}
		if ((end = lseek(in, at, SEEK_HOLE)) < 0)
			end = st.st_size;
		for (; at < end; at += n) {
			errno = EIO;            /* of a file that became shorter */
			n = pread(in, chunk, end - at > 1 << 20 ? 1 << 20 : (size_t)(end - at), at);
			if (n <= 0)
				break;
			errno = ENOSPC;         /* what a short write means */
			if (pwrite(out, chunk, (size_t)n, at) != n)
				break;
		}
		if (at < end)
			break;
	}
	free(chunk);
	if (gotsig)
		errno = EINTR;
	return at == st.st_size ? 0 : -1;
}

/* dst becomes src's content: a reflink, else (ours: nobody writes src) a hard
 * link, else a copy that keeps holes.  -1 with errno, and dst is as it was: not
 * there, or (EEXIST) another's. */
static int
clonefile(const char *src, const char *dst, bool ours)
{
	int in, out, e = 0;

	if ((in = open(src, O_RDONLY|O_CLOEXEC)) < 0)
		return -1;
	if ((out = open(dst, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0644)) < 0) {
		e = errno;
	} else if (ioctl(out, _IOW(0x94, 9, int), in) < 0) {   /* FICLONE, ioctl_ficlone(2) */
		if (ours && unlink(dst) == 0 && link(src, dst) == 0)
			;
		else if (access(dst, F_OK) < 0 &&
		    (close(out), out = open(dst, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0644)) < 0)
			e = errno;
		else if (copysparse(in, out) < 0)
			e = errno ? errno : EIO;
	}
	if (out >= 0 && close(out) < 0 && !e)
		e = errno;
	close(in);
	if (e && out >= 0)
		(void)unlink(dst);
	errno = e;
	return e ? -1 : 0;
}

/* The process that holds a lock on a pid file, 0 when none does, -1 when it is
 * one of another pid namespace.  QEMU keeps one on its -pidfile (lockf,
 * fcntl(2)), our host agent one on ha.pid: the kernel drops it with the process,
 * so a stale file or a reused pid lies to nobody.  The answer comes from l_pid;
 * the file's text is never read. */
static pid_t
lockholder(const char *path)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR|O_CLOEXEC|O_NOFOLLOW|O_NONBLOCK);
	pid_t pid = 0;

	if (fd < 0)
		return 0;
	/* a holder in another container has no pid here, and cannot be signalled */
	if (fcntl(fd, F_GETLK, &fl) == 0 && fl.l_type != F_UNLCK)
		pid = fl.l_pid > 0 ? fl.l_pid : -1;
	close(fd);
	return pid;
}

/* Wait for the exclusive lock on a directory or file; the fd holds it.  -1 with
 * errno.  what: said on stderr when another process has it. */
static int
lockfile(const char *path, int flags, const char *what)
{
	int fd = open(path, flags|O_CLOEXEC, 0600), e;

	if (fd < 0 || flock(fd, LOCK_EX|LOCK_NB) == 0)
		return fd;
	if (errno == EWOULDBLOCK) {
		info("Waiting for another limactl to finish with %s", what);
		while (flock(fd, LOCK_EX) < 0 && errno == EINTR && !gotsig)
			;
		if (!gotsig)
			return fd;
	}
	e = errno;
	close(fd);
	errno = e;
	return -1;
}

/* ---- 5. Processes ------------------------------------------------------- */

/* What to run, and how.  The only fork of the program is in spawn(). */
struct job {
	char *const *argv;
	int fd[3];              /* its stdin, stdout, stderr; -1 keeps ours, NOFD is /dev/null */
	int pass;               /* one more descriptor, handed down as 3; 0: none */
	const char *dir;        /* chdir first */
	char *const *env;       /* environment; NULL keeps ours */
	bool session;           /* a session of its own: ^C does not reach it */
};
#define NOFD (-2)

static int
cloexecpipe(int p[2])
{
	return pipe2(p, O_CLOEXEC);
}

/* Is SIGHUP ignored, as nohup(1) has it? */
static bool
nohup(void)
{
	struct sigaction sa;

	return sigaction(SIGHUP, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

/* exec resets handlers, but neither ignored signals nor the mask. */
static void
childsignals(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGPIPE, SIGCHLD, SIGQUIT, SIGHUP };
	sigset_t none;
	size_t i, n = LEN(sigs) - nohup();

	for (i = 0; i < n; i++)
		signal(sigs[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Every descriptor above 2 closes on exec, also those our own parent leaked to
 * us; the one to pass is dup2ed afterwards, which clears the flag. */
static int
childfds(const struct job *j)
{
	int null = -1, i, fd;

	for (i = 0; i < 3; i++) {
		fd = j->fd[i];
		if (fd == NOFD && (fd = null) < 0 && (fd = null = open("/dev/null", O_RDWR|O_CLOEXEC)) < 0)
			return -1;
		if (fd >= 0 && fd != i && dup2(fd, i) < 0)
			return -1;
	}
	/* before Linux 5.9 there is no close_range(2): go through the first 1024 */
	if (syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */) < 0)
		for (i = 3; i < 1024; i++)
			(void)fcntl(i, F_SETFD, FD_CLOEXEC);
	if (j->pass > 3)
		return dup2(j->pass, 3) < 0 ? -1 : 0;
	return j->pass == 3 ? fcntl(3, F_SETFD, 0) : 0;
}

/* Run j->argv.  The pid, or -1 with errno, exec's own included: the error pipe
 * is close-on-exec, so it reads end of file exactly when exec worked. */
static pid_t
spawn(const struct job *j)
{
	sigset_t all, old;
	int ep[2], e = 0, w;
	ssize_t n;
	pid_t pid;

	if (cloexecpipe(ep) < 0)
		return -1;
	if ((w = fcntl(ep[1], F_DUPFD_CLOEXEC, 10)) < 0) {
		e = errno;
		close(ep[0]);
		close(ep[1]);
		errno = e;
		return -1;
	}
	close(ep[1]);           /* 3 must stay free for j->pass */
	sigfillset(&all);       /* our handlers must not run in the child */
	sigprocmask(SIG_BLOCK, &all, &old);
	if ((pid = fork()) == 0) {
		childsignals();
		if (j->session)
			setsid();
		if (childfds(j) == 0 && (!j->dir || chdir(j->dir) == 0)) {
			if (j->env)
				execvpe(j->argv[0], j->argv, j->env);
			else
				execvp(j->argv[0], j->argv);
		}
		e = errno;
		_exit(writeall(w, &e, sizeof e) < 0 ? 126 : 127);
	}
	e = errno;
	close(w);
	if (pid > 0) {
		n = read(ep[0], &e, sizeof e);  /* signals still blocked: no EINTR */
		if (n > 0) {
			waitpid(pid, NULL, 0);
			pid = -1;
		}
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(ep[0]);
	errno = e;
	return pid;
}

static int
pidfdopen(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);   /* close-on-exec by itself */
}

static int
pidfdkill(int pidfd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* The pidfd of the process that lockholder() named; -1 with errno, ESRCH when the
 * lock is no longer its own, for then the pid may be another's. */
static int
holderpidfd(const char *path, pid_t pid)
{
	int fd = pidfdopen(pid);

	if (fd < 0 || lockholder(path) == pid)
		return fd;
	close(fd);
	errno = ESRCH;
	return -1;
}

/* Wait for a child.  A signal that asks us to end is passed on to it, once. */
static int
waitchild(pid_t pid)
{
	int st = 0;
	bool told = false;

	do {
		if (gotsig && !told) {
			(void)kill(pid, SIGTERM);
			told = true;
		}
	} while (waitpid(pid, &st, 0) < 0 && errno == EINTR);
	return st;
}

/* What a wait status says: "exited with status 1", "was killed by signal 9". */
static const char *
ended(int st)
{
	return st == -1 ? "could not be run" : WIFSIGNALED(st) ? keep("was killed by signal %d", WTERMSIG(st)) :
	    keep("exited with status %d", WEXITSTATUS(st));
}

/* Run argv to its end without stdin.  out: gets its stdout, at most 1 MiB; NULL:
 * nobody does.  err: a descriptor for stderr, -1: ours, NOFD.  The wait status;
 * -1 with errno when it could not be run. */
static int
runto(char *const argv[], const char *dir, struct buf *out, int err)
{
	struct job j = { .argv = argv, .fd = { NOFD, NOFD, err }, .dir = dir };
	int p[2] = { -1, -1 }, e;
	pid_t pid;

	if (out && cloexecpipe(p) < 0)
		return -1;
	if (out)
		j.fd[1] = p[1];
	pid = spawn(&j);
	e = errno;
	if (out)
		close(p[1]);
	if (pid > 0 && out)
		(void)readall(p[0], out, 1 << 20);      /* what matters is the status */
	if (out)
		close(p[0]);
	errno = e;
	return pid < 0 ? -1 : waitchild(pid);
}

/* Run argv to its end where we run: our stdin, stdout and stderr.  As runto(). */
static int
runhere(char *const argv[])
{
	struct job j = { .argv = argv, .fd = { -1, -1, -1 } };
	pid_t pid = spawn(&j);

	return pid < 0 ? -1 : waitchild(pid);
}

/* As runto(), with the first 64 KiB of stderr in err, which is a text afterwards. */
static int
runerr(char *const argv[], const char *dir, struct buf *out, struct buf *err)
{
	int fd = memfd_create("stderr", MFD_CLOEXEC), st, e;

	if (fd < 0)
		die("memfd_create:");
	st = runto(argv, dir, out, fd);
	e = errno;
	(void)lseek(fd, 0, SEEK_SET);
	(void)readall(fd, err, 1 << 16);
	bufputs(err, "");               /* an interrupted read left nothing */
	close(fd);
	errno = e;
	return st;
}

/* Run a program whose failure ends the command; its stderr is the reason. */
static void
runordie(char *const argv[], const char *dir, const char *package)
{
	struct buf b = { 0 };
	int st = runerr(argv, dir, NULL, &b);

	if (st < 0 && errno == ENOENT)
		die("%s: not found in PATH; install %s", argv[0], package);
	if (st < 0)
		die("run %s:", argv[0]);
	if (gotsig)
		die("interrupted");
	if (st != 0)
		die("%s failed: %s", argv[0], *chomp(b.s) ? b.s : ended(st));
	buffree(&b);
}

/* The first executable file of that name in a colon list of directories, or NULL. */
static const char *
findin(const char *path, const char *name)
{
	const char *p, *end;
	struct stat st;
	char *full;

	for (p = path; p; p = *end ? end + 1 : NULL) {
		end = p + strcspn(p, ":");
		full = keep("%.*s/%s", (int)(end - p), p, name);
		if (access(full, X_OK) == 0 && stat(full, &st) == 0 && S_ISREG(st.st_mode))
			return full;
	}
	return NULL;
}

/* The path of a program in PATH, or NULL. */
static const char *
findprog(const char *name)
{
	if (strchr(name, '/'))
		return access(name, X_OK) == 0 ? name : NULL;
	return findin(envor("PATH", "/usr/bin:/bin"), name);
}

static void
onsignal(int sig)
{
	gotsig = sig;
}

/* A command that is asked to end finishes its system call with EINTR, cleans
 * up and says so. */
static void
catchsignals(void (*handler)(int))
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = handler };
	size_t i, n = LEN(sigs) - nohup();

	sigemptyset(&sa.sa_mask);
	for (i = 0; i < n; i++)
		sigaction(sigs[i], &sa, NULL);
}

/* ---- 6. SHA-256 and inflate --------------------------------------------- */

/* FIPS 180-4, one-shot: names, cache keys and addresses need it; files are
 * hashed by sha256sum. */
static uint32_t
rotr(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void
shablock(uint32_t h[8], const unsigned char *p)
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	};
	uint32_t w[64], s[8], a, b;
	int i;

	for (i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		    (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) +
		    (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, h, sizeof s);
	for (i = 0; i < 64; i++) {
		a = s[7] + (rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25)) +
		    ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
		b = (rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22)) +
		    ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
		memmove(s + 1, s, 7 * sizeof *s);
		s[4] += a;
		s[0] = a + b;
	}
	for (i = 0; i < 8; i++)
		h[i] += s[i];
}

static void
sha256(const void *data, size_t len, unsigned char out[32])
{
	uint32_t h[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};
	unsigned char last[128] = { 0 };
	const unsigned char *p = data;
	uint64_t bits = (uint64_t)len * 8;
	size_t n = len, end;
	int i;

	for (; n >= 64; n -= 64, p += 64)
		shablock(h, p);
	if (n)
		memcpy(last, p, n);
	last[n] = 0x80;
	end = n < 56 ? 64 : 128;        /* the length takes the last eight bytes */
	for (i = 0; i < 8; i++)
		last[end - 1 - (size_t)i] = (unsigned char)(bits >> 8 * i);
	shablock(h, last);
	if (end == 128)
		shablock(h, last + 64);
	for (i = 0; i < 32; i++)
		out[i] = (unsigned char)(h[i / 4] >> (24 - i % 4 * 8));
}

/* The first n bytes of a text's SHA-256 as lower case hex. */
static const char *
hashhex(const char *s, size_t n)
{
	unsigned char d[32];
	struct buf b = { 0 };
	size_t i;

	sha256(s, strlen(s), d);
	for (i = 0; i < n; i++)
		bufprintf(&b, "%02x", d[i]);
	return bufkeep(&b);
}

/* DEFLATE (RFC 1951) out of a gzip member (RFC 1952) that the Makefile made:
 * the files in this binary are worth a third of their size. */
struct inflate {
	const unsigned char *in, *end;
	unsigned char *out;
	size_t len, cap;
	unsigned hold;          /* bits read and not used, the first is the lowest */
	int held;
};
struct huffman {
	unsigned short count[16];       /* codes of each length */
	unsigned short sym[288];        /* in the order of their codes */
};

static unsigned
infbits(struct inflate *z, int n)
{
	unsigned v;

	for (; z->held < n; z->held += 8) {
		assert(z->in < z->end);
		z->hold |= (unsigned)*z->in++ << z->held;
	}
	v = z->hold & ((1u << n) - 1);
	z->hold >>= n;
	z->held -= n;
	return v;
}

static void
infout(struct inflate *z, unsigned char c)
{
	assert(z->len < z->cap);
	z->out[z->len++] = c;
}

/* 3.2.2: codes of a length are consecutive, those of the next follow doubled. */
static unsigned
infsym(struct inflate *z, const struct huffman *h)
{
	unsigned code = 0, first = 0, i = 0;
	int len;

	for (len = 1; len < 16; len++) {
		code = code << 1 | infbits(z, 1);
		first <<= 1;
		if (code < first + h->count[len])
			return h->sym[i + code - first];
		i += h->count[len];
		first += h->count[len];
	}
	assert(!"no such code");
	return 0;
}

static void
infcodes(struct huffman *h, const unsigned char *lens, unsigned n)
{
	unsigned short at[16] = { 0 };
	unsigned i;

	memset(h->count, 0, sizeof h->count);
	for (i = 0; i < n; i++)
		h->count[lens[i]]++;
	h->count[0] = 0;
	for (i = 1; i < 15; i++)
		at[i + 1] = (unsigned short)(at[i] + h->count[i]);
	for (i = 0; i < n; i++)
		if (lens[i])
			h->sym[at[lens[i]]++] = (unsigned short)i;
}

/* 3.2.6: the tables of a block that has none of its own. */
static void
inffixed(struct inflate *z, struct huffman *lit, struct huffman *dist)
{
	unsigned char lens[288];
	unsigned i;

	(void)z;
	for (i = 0; i < 288; i++)
		lens[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
	infcodes(lit, lens, 288);
	memset(lens, 5, 30);
	infcodes(dist, lens, 30);
}

/* 3.2.7: the code lengths of a dynamic block, themselves coded. */
static void
inftables(struct inflate *z, struct huffman *lit, struct huffman *dist)
{
	static const unsigned char order[] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
	unsigned char lens[288 + 32] = { 0 };
	unsigned nlit = infbits(z, 5) + 257, ndist = infbits(z, 5) + 1, n = infbits(z, 4) + 4, i, s, rep;

	for (i = 0; i < n; i++)
		lens[order[i]] = (unsigned char)infbits(z, 3);
	infcodes(lit, lens, 19);
	memset(lens, 0, sizeof lens);
	for (i = 0; i < nlit + ndist;) {
		if ((s = infsym(z, lit)) < 16) {
			lens[i++] = (unsigned char)s;
			continue;
		}
		rep = s == 16 ? infbits(z, 2) + 3 : s == 17 ? infbits(z, 3) + 3 : infbits(z, 7) + 11;
		assert(i + rep <= nlit + ndist && (s != 16 || i));
		s = s == 16 ? lens[i - 1] : 0;
		while (rep--)
			lens[i++] = (unsigned char)s;
	}
	infcodes(lit, lens, nlit);
	infcodes(dist, lens + nlit, ndist);
}

/* 3.2.4: bytes as they are, from a byte boundary on, after a length and its
 * complement. */
static void
infstored(struct inflate *z)
{
	unsigned n;

	(void)infbits(z, z->held % 8);
	n = infbits(z, 16);
	(void)infbits(z, 16);
	while (n--)
		infout(z, (unsigned char)infbits(z, 8));
}

/* 3.2.5: literals, and copies of what was written up to 32 KiB before. */
static void
infblock(struct inflate *z, const struct huffman *lit, const struct huffman *dist)
{
	unsigned s, n, d, extra;

	while ((s = infsym(z, lit)) != 256) {
		if (s < 256) {
			infout(z, (unsigned char)s);
			continue;
		}
		s -= 257;
		extra = s < 8 || s == 28 ? 0 : s / 4 - 1;
		n = s == 28 ? 258 : s < 8 ? s + 3 : ((4 + s % 4) << extra) + 3;
		n += infbits(z, (int)extra);
		s = infsym(z, dist);
		extra = s < 4 ? 0 : s / 2 - 1;
		d = s < 4 ? s + 1 : ((2 + s % 2) << extra) + 1;
		d += infbits(z, (int)extra);
		assert(d <= z->len);
		while (n--)
			infout(z, z->out[z->len - d]);
	}
}

/* A gzip member without a header's optional parts, as `gzip -n` makes it.
 * Returns what it holds, on perm; its length in *n. */
static const unsigned char *
gunzip(const unsigned char *p, size_t len, size_t *n)
{
	const unsigned char *size = p + len - 4;        /* ISIZE */
	struct inflate z = { .in = p + 10, .end = p + len - 8 };
	struct huffman lit, dist;
	unsigned last, type;

	z.cap = (size_t)size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16;
	z.out = yalloc(&perm, z.cap + 1);
	z.out[z.cap] = 0;
	do {
		last = infbits(&z, 1);
		if (!(type = infbits(&z, 2))) {
			infstored(&z);
			continue;
		}
		(type == 1 ? inffixed : inftables)(&z, &lit, &dist);
		infblock(&z, &lit, &dist);
	} while (!last);
	assert(z.len == z.cap);
	*n = z.len;
	return z.out;
}

/* ---- 7. Host ------------------------------------------------------------ */

/* What the host is, asked once. */
static struct {
	const char *argv0;      /* how we were called */
	const char *home;       /* $HOME */
	const char *limahome;   /* LIMA_HOME, resolved */
	const char *arch;       /* uname -m in our spelling */
	const char *login, *gecos;      /* of the real uid; login NULL: no passwd entry */
	uid_t uid;
} host;

static const struct arch *
archbyname(const char *name)
{
	size_t i;

	for (i = 0; i < LEN(archs); i++)
		if (strcmp(archs[i].name, name) == 0)
			return &archs[i];
	return NULL;
}

static const char *
hostarch(void)
{
#if defined(__x86_64__)
	return "x86_64";
#elif defined(__aarch64__)
	return "aarch64";
#elif defined(__arm__)
	return "armv7l";
#elif defined(__riscv)
	return "riscv64";
#elif defined(__powerpc64__)
	return "ppc64le";
#elif defined(__s390x__)
	return "s390x";
#else
#error "add this architecture to archs[] in config.h and here"
#endif
}

/* The passwd entry of the real uid.  A static binary cannot load NSS modules,
 * so users of LDAP and the like are asked of getent(1). */
static void
hostuser(void)
{
	struct passwd *pw = getpwuid(getuid());
	struct args a = { 0 };
	struct buf b = { 0 };
	char *f[7] = { NULL }, *p;
	size_t n = 0;

	host.uid = getuid();
	if (pw) {
		host.login = keep("%s", pw->pw_name);
		host.gecos = keep("%s", pw->pw_gecos ? pw->pw_gecos : "");
		return;
	}
	argwords(&a, "getent passwd");
	arg(&a, "%ld", (long)host.uid);
	if (runto(a.v, NULL, &b, NOFD) == 0) {
		for (p = keep("%s", b.s); p && n < LEN(f); n++)
			f[n] = strsep(&p, ":");
		host.login = n >= 5 ? f[0] : NULL;
		host.gecos = n >= 5 ? f[4] : "";
	}
	argsfree(&a);
	buffree(&b);
}

/* A path without links, for the life of the command; NULL with errno. */
static const char *
resolved(const char *path)
{
	char *real = realpath(path, NULL);
	const char *s = real ? keep("%s", real) : NULL;

	free(real);
	return s;
}

static void
hostinit(void)
{
	const char *lh = envor("LIMA_HOME", NULL), *real;

	host.arch = hostarch();
	if (!(host.home = envor("HOME", NULL)) && lh) {
		struct passwd *pw = getpwuid(getuid());
		host.home = pw ? keep("%s", pw->pw_dir) : NULL;
	}
	if (lh)
		host.limahome = *lh == '/' ? lh : (real = resolved(".")) ? keep("%s/%s", real, lh) : lh;
	else if (host.home)
		host.limahome = keep("%s/.lima", host.home);
	else
		die("neither $HOME nor $LIMA_HOME is set; set one of them to a directory you may write");
	if ((real = resolved(host.limahome)))
		host.limahome = real;
	hostuser();
}

/* limactl itself. */
static const char *
selfpath(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);

	if (n < 0)
		die("readlink /proc/self/exe:");
	path[n] = '\0';
	return keep("%s", path);
}

/* A path without its last component; NULL when there is none. */
static const char *
parentdir(const char *path)
{
	const char *p = path ? strrchr(path, '/') : NULL;

	return p ? keep("%.*s", (int)(p - path), path) : NULL;
}

/* The directory of limactl: 0, as it was called, links kept; 1, as it is.  NULL
 * when that is unknown. */
static const char *
owndir(int which)
{
	/* without a /proc there is only argv[0] */
	const char *p = which && access("/proc/self/exe", F_OK) == 0 ? selfpath() : host.argv0, *cwd;

	if (p && !strchr(p, '/'))
		p = findprog(p);
	if (!p || *p == '/')
		return parentdir(p);
	cwd = resolved(".");
	return parentdir(keep("%s/%s", cwd ? cwd : "", startswith(p, "./") ? p + 2 : p));
}

/* Where plugins are looked for: limactl's own directories, PATH, and libexec. */
static const char *
pluginpath(void)
{
	const char *dir, *prefix;
	struct buf b = { 0 };
	int i;

	for (i = 0; i < 2; i++)
		if ((dir = owndir(i)))
			bufprintf(&b, "%s:", dir);
	bufputs(&b, envor("PATH", "/usr/bin:/bin"));
	for (i = 0; i < 2; i++)
		if ((prefix = parentdir(owndir(i))))
			bufprintf(&b, ":%s/libexec/lima:%s/lib/lima", prefix, prefix);
	return bufkeep(&b);
}

/* LIMA_HOME below which instances and _config live, made when missing. */
static void
needhome(void)
{
	struct stat st;

	if (mkdirs(host.limahome, 0700) < 0)
		die("create %s (set LIMA_HOME to a directory you may write):", host.limahome);
	if (stat(host.limahome, &st) == 0 && !S_ISDIR(st.st_mode))
		die("%s is no directory (set LIMA_HOME to one you may write)", host.limahome);
	if (access(host.limahome, W_OK|X_OK) < 0)
		die("%s is not writable (set LIMA_HOME to a directory you may write):", host.limahome);
}

static const char *
cachedir(void)
{
	const char *x = getenv("XDG_CACHE_HOME");

	if (x && *x == '/')
		return keep("%s/lima", x);
	if (!host.home)
		die("neither $HOME nor $XDG_CACHE_HOME is set; set one of them");
	return keep("%s/.cache/lima", host.home);
}

/* KVM or TCG for a guest of this architecture, and why (design: a /dev/kvm that
 * opens is not yet one in which a stock kernel boots; the CPU has to say vmx or
 * svm too, which it does not inside many clouds' VMs). */
static const char *
accelerator(const char *arch, const char **why)
{
	const char *env = envor("LIMA_ACCEL", NULL);
	struct buf b = { 0 };
	bool virt = true;
	int fd;

	if (env) {
		*why = "LIMA_ACCEL says so";
		return env;
	}
	if (strcmp(arch, host.arch) != 0) {
		*why = keep("the guest is %s, the host %s", arch, host.arch);
		return "tcg";
	}
	if ((fd = open("/dev/kvm", O_RDWR|O_CLOEXEC)) < 0) {
		*why = errno == EACCES ? "/dev/kvm: permission denied; join the group kvm" :
		    keep("/dev/kvm: %s", errtext(errno));
		return "tcg";
	}
	close(fd);
	if (strcmp(arch, "x86_64") == 0) {
		if (readfile("/proc/cpuinfo", &b, 16 << 20) == 0)
			virt = strstr(b.s, " vmx") || strstr(b.s, " svm");
		buffree(&b);
	}
	*why = virt ? "/dev/kvm is usable" : "/dev/kvm opens, but the CPU has neither vmx nor svm";
	return virt ? "kvm" : "tcg";
}

/* CPUs this process may run on. */
static int
hostcpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* Zone of /etc/timezone, else of the /etc/localtime link; "" when unknown. */
static const char *
hosttimezone(void)
{
	const char *tz = readline1("/etc/timezone"), *real, *p;

	if (tz && *tz && access(keep("/usr/share/zoneinfo/%s", tz), F_OK) == 0)
		return tz;
	p = (real = resolved("/etc/localtime")) ? strstr(real, "/zoneinfo/") : NULL;
	return p ? p + strlen("/zoneinfo/") : "";
}

/* 52:55:55 and three bytes of a hash over machine and unique (runtime.md 10.4). */
static const char *
macaddress(const char *unique)
{
	const char *id = readline1("/etc/machine-id"), *h;
	char name[256] = "";

	if (!id || !*id)
		id = readline1("/var/lib/dbus/machine-id");
	if (!id || !*id) {
		gethostname(name, sizeof name - 1);
		id = name;
	}
	h = hashhex(keep("%s%s", id, unique), 3);
	return keep("52:55:55:%.2s:%.2s:%.2s", h, h + 2, h + 4);
}

/* ---- 8. Text templates -------------------------------------------------- */

/* The part of Go's text/template that configurations, messages and
 * `list --format` use: field chains, if/else/with/range/end, variables, pipes,
 * literals, a table of functions, comments and trim markers.
 *
 * The text is its own program: one recursive descent both parses and runs, and
 * what is not to run (an untaken branch) is only parsed. A first pass that runs
 * nothing finds every syntax error before anything is printed; a range runs its
 * body by going back to where it begins. A value is a node, NULL is "no value". */

#define TMPLDEPTH  100                  /* blocks and parentheses in one another */
#define TMPLSTEPS  1000000              /* actions run */
#define TMPLVARS   64
#define TMPLARGS   16

struct tt {
	const char *name;               /* in messages */
	const struct ynode *root;       /* what . and $ are at first */
	/* a member of a map; NULL is no value. Unset: yget(). It may end in ttfail() */
	const struct ynode *(*member)(struct tt *, const struct ynode *map, const char *name);
	bool listfuncs;                 /* json, yaml, indent and missing are there too */
	bool syntax;                    /* after a failure: did it not even parse? */
	char err[512];
	const char *result;
	/* the run */
	const char *text, *p;
	struct ydoc d;                  /* arena of computed values */
	struct buf out;
	const struct ynode *dot;
	struct { const char *name; const struct ynode *v; } vars[TMPLVARS];
	size_t nvars;
	bool exec, trim;                /* run, or only parse; the last action ended in -}} */
	enum { TNOJUMP, TBREAK, TCONTINUE } jump;
	int depth, loops;
	long steps;
	const char *at;                 /* the operand looked at, for messages */
	size_t atlen, atpos;
	jmp_buf env;
};
enum ttend { TEOF, TEND, TELSE };

static const struct ynode *ttpipe(struct tt *t);

static _Noreturn void PRINTF(2, 3)
ttfail(struct tt *t, const char *fmt, ...)
{
	size_t pos = t->exec ? t->atpos : (size_t)(t->p - t->text), i, ls = 0, line = 1;
	char why[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	for (i = 0; i < pos; i++)
		if (t->text[i] == '\n') {
			line++;
			ls = i;         /* as Go counts: from 0 in the first line, from 1 in others */
		}
	t->syntax = !t->exec;
	if (t->exec)
		snprintf(t->err, sizeof t->err, "template: %s:%zu:%zu: executing \"%s\" at <%.*s>: %s",
		    t->name, line, pos - ls, t->name, (int)t->atlen, t->at, why);
	else
		snprintf(t->err, sizeof t->err, "template: %s:%zu: %s", t->name, line, why);
	longjmp(t->env, 1);
}

static void
ttenter(struct tt *t)
{
	if (++t->depth > TMPLDEPTH)
		ttfail(t, "more than %d levels", TMPLDEPTH);
	if (++t->steps > TMPLSTEPS || t->out.len > 16u << 20)
		ttfail(t, "the template does not come to an end");
}

static const struct ynode *
ttstr(struct tt *t, const char *s)
{
	return ynewstr(&t->d, s ? s : "");
}

static bool
tttrue(const struct ynode *v)
{
	if (!v || v->kind == Y_NULL)
		return false;
	return v->kind == Y_STR ? v->len > 0 : v->kind == Y_SEQ || v->kind == Y_MAP ? v->n > 0 : v->f != 0 || v->i != 0;
}

static const char *
tttype(const struct ynode *v)
{
	static const char *const t[] = { "nil", "bool", "int", "float64", "string", "slice", "map" };

	return t[v ? v->kind : Y_NULL];
}

static int
nodekeycmp(const void *a, const void *b)
{
	const char *s = ykey(*(const struct ynode *const *)a), *t = ykey(*(const struct ynode *const *)b);

	return strcmp(s ? s : "", t ? t : "");
}

/* The values of a map in the order of their keys, as Go prints and ranges. */
static const struct ynode **
ttsorted(struct tt *t, const struct ynode *map)
{
	const struct ynode **v = yalloc(&t->d.a, (map->n + 1) * sizeof *v), *n;
	size_t i = 0;

	for (n = map->first; n; n = n->next)
		v[i++] = n;
	if (map->kind == Y_MAP)
		qsort(v, i, sizeof *v, nodekeycmp);
	return v;
}

/* A value as Go's %v prints it. */
static void
ttprint(struct tt *t, struct buf *b, const struct ynode *v)
{
	const struct ynode **k;
	const char *s;
	size_t i;

	if (!v || v->kind == Y_NULL) {
		bufputs(b, "<nil>");
	} else if (v->kind == Y_SEQ || v->kind == Y_MAP) {
		ttenter(t);
		k = ttsorted(t, v);
		bufputs(b, v->kind == Y_MAP ? "map[" : "[");
		for (i = 0; i < v->n; i++) {
			bufprintf(b, "%s%s%s", i ? " " : "", v->kind == Y_MAP ? ykey(k[i]) : "", v->kind == Y_MAP ? ":" : "");
			ttprint(t, b, k[i]);
		}
		bufputc(b, ']');
		t->depth--;
	} else if (v->kind == Y_STR) {
		bufadd(b, v->s, v->len);
	} else if ((s = ystr(v))) {
		bufputs(b, s);
	}
}

static const char *
tttext(struct tt *t, const struct ynode *v)
{
	struct buf b = { 0 };
	const char *s;

	if (v && v->kind == Y_STR)
		return v->s;
	ttprint(t, &b, v);
	s = ystrndup(&t->d.a, b.s, b.len);
	buffree(&b);
	return s;
}

/* -1, 0, 1; other kinds of values do not compare. */
static int
ttcmp(struct tt *t, const struct ynode *a, const struct ynode *b, bool order)
{
	if (!a || !b || a->kind == Y_NULL || b->kind == Y_NULL) {
		if (order)
			ttfail(t, "invalid type for comparison");
		return tttrue(a) || tttrue(b) || a != b;
	}
	if (a->kind != b->kind)
		ttfail(t, "incompatible types for comparison");
	if (a->kind == Y_SEQ || a->kind == Y_MAP || (order && a->kind == Y_BOOL))
		ttfail(t, "invalid type for comparison");
	if (a->kind == Y_STR)
		return strcmp(a->s, b->s);
	if (a->kind == Y_FLOAT)
		return a->f < b->f ? -1 : a->f > b->f;
	return a->i < b->i ? -1 : a->i > b->i;
}

enum ttop { TAND, TOR, TNOT, TEQ, TNE, TLT, TLE, TGT, TGE, TLEN, TINDEX, TPRINT, TPRINTLN, TPRINTF, TJSON, TYAML, TINDENT, TMISSING };
static const struct ttfunc {
	const char *name;
	int min, max;
	bool list;                      /* for list --format only */
} ttfuncs[] = {
	[TAND] = { "and", 1, TMPLARGS, false },   [TOR] = { "or", 1, TMPLARGS, false },
	[TNOT] = { "not", 1, 1, false },          [TEQ] = { "eq", 2, TMPLARGS, false },
	[TNE] = { "ne", 2, 2, false },            [TLT] = { "lt", 2, 2, false },
	[TLE] = { "le", 2, 2, false },            [TGT] = { "gt", 2, 2, false },
	[TGE] = { "ge", 2, 2, false },            [TLEN] = { "len", 1, 1, false },
	[TINDEX] = { "index", 1, TMPLARGS, false }, [TPRINT] = { "print", 0, TMPLARGS, false },
	[TPRINTLN] = { "println", 0, TMPLARGS, false }, [TPRINTF] = { "printf", 1, TMPLARGS, false },
	[TJSON] = { "json", 1, 1, true },         [TYAML] = { "yaml", 1, 1, true },
	[TINDENT] = { "indent", 1, 2, true },     [TMISSING] = { "missing", 1, 2, true },
};

/* printf: flags, width and precision are C's; the verb decides on the value. */
static void
ttprintf(struct tt *t, struct buf *b, const struct ynode **v, size_t n)
{
	const char *p = tttext(t, v[0]), *s;
	char spec[16];
	size_t i = 1, k;

	for (; *p; p++) {
		if (*p != '%') {
			bufputc(b, *p);
			continue;
		}
		/* C takes no other order, and does not say what it does with one */
		k = 1 + strspn(p + 1, "-+ #0");
		k += strspn(p + k, "0123456789");
		k += p[k] == '.' ? 1 + strspn(p + k + 1, "0123456789") : 0;
		if (k > 8)              /* a width of a million blanks is no use */
			ttfail(t, "bad verb in %.20s", p);
		memcpy(spec, p, k);
		p += k;
		if (*p == '%' || !*p) {
			bufputc(b, '%');
			p -= !*p;
			continue;
		}
		if (i >= n) {
			bufprintf(b, "%%!%c(MISSING)", *p);
			continue;
		}
		s = tttext(t, v[i]);
		if (strchr("dxXoc", *p) && v[i] && v[i]->kind == Y_INT) {
			snprintf(spec + k, sizeof spec - k, "ll%c", *p == 'c' ? 'd' : *p);
			bufprintf(b, spec, v[i]->i);
		} else if (strchr("feg", *p) && v[i] && v[i]->kind == Y_FLOAT) {
			snprintf(spec + k, sizeof spec - k, "%c", *p);
			bufprintf(b, spec, v[i]->f);
		} else if (strchr("vst", *p) && (*p != 's' || !v[i] || v[i]->kind != Y_INT)) {
			snprintf(spec + k, sizeof spec - k, "s");
			bufprintf(b, spec, s);
		} else if (*p == 'q') {
			yjsonstr(b, s, strlen(s));
		} else {
			bufprintf(b, "%%!%c(%s=%s)", *p, tttype(v[i]), s);
		}
		i++;
	}
	if (i < n) {
		bufputs(b, "%!(EXTRA ");
		for (k = i; k < n; k++)
			bufprintf(b, "%s%s=%s", k > i ? ", " : "", tttype(v[k]), tttext(t, v[k]));
		bufputc(b, ')');
	}
}

static const struct ynode *
ttindex(struct tt *t, const struct ynode *v, const struct ynode *k)
{
	const struct ynode *n;
	long long i;

	if (!v)
		ttfail(t, "error calling index: index of untyped nil");
	if (v->kind == Y_MAP)
		return yget(v, tttext(t, k));
	if (!k || k->kind != Y_INT)
		ttfail(t, "error calling index: cannot index %s with type %s", tttype(v), tttype(k));
	if (v->kind == Y_STR && k->i >= 0 && (size_t)k->i < v->len)
		return ynewint(&t->d, (unsigned char)v->s[k->i]);
	if (v->kind != Y_SEQ && v->kind != Y_STR)
		ttfail(t, "error calling index: can't index item of type %s", tttype(v));
	for (n = v->first, i = k->i; n && i > 0; n = n->next)
		i--;
	if (i || !n)
		ttfail(t, "error calling index: index out of range: %lld", k->i);
	return n;
}

/* Call function f; and/or have chosen already. */
static const struct ynode *
ttcall(struct tt *t, enum ttop f, const struct ynode **v, size_t n)
{
	struct buf b = { 0 };
	const struct ynode *r = NULL;
	const char *s;
	size_t i;
	int c;

	switch (f) {
	case TAND:
	case TOR:
		return v[n - 1];
	case TNOT:
		return ynewbool(&t->d, !tttrue(v[0]));
	case TEQ:
		for (i = 1; i < n; i++)
			if (ttcmp(t, v[0], v[i], false) == 0)
				return ynewbool(&t->d, true);
		return ynewbool(&t->d, false);
	case TNE:
		return ynewbool(&t->d, ttcmp(t, v[0], v[1], false) != 0);
	case TLT: case TLE: case TGT: case TGE:
		c = ttcmp(t, v[0], v[1], true);
		return ynewbool(&t->d, f == TLT ? c < 0 : f == TLE ? c <= 0 : f == TGT ? c > 0 : c >= 0);
	case TLEN:
		if (!v[0] || (v[0]->kind != Y_STR && v[0]->kind != Y_SEQ && v[0]->kind != Y_MAP))
			ttfail(t, "error calling len: len of type %s", tttype(v[0]));
		return ynewint(&t->d, (long long)(v[0]->kind == Y_STR ? v[0]->len : v[0]->n));
	case TINDEX:
		for (r = v[0], i = 1; i < n; i++)
			r = ttindex(t, r, v[i]);
		return r;
	case TPRINT:
	case TPRINTLN:
		for (i = 0; i < n; i++) {
			/* print sets operands apart when neither is a string */
			if (i && (f == TPRINTLN || !((v[i] && v[i]->kind == Y_STR) || (v[i - 1] && v[i - 1]->kind == Y_STR))))
				bufputc(&b, ' ');
			ttprint(t, &b, v[i]);
		}
		if (f == TPRINTLN)
			bufputc(&b, '\n');
		break;
	case TPRINTF:
		ttprintf(t, &b, v, n);
		break;
	case TJSON:
		if (v[0])
			yjson(&b, v[0], 0);
		else
			bufputs(&b, "null");
		break;
	case TYAML:
		bufputs(&b, "---\n");
		if (v[0])
			yyaml(&b, v[0], 0);
		break;
	case TINDENT:
		c = n > 1 && v[0] && v[0]->kind == Y_INT && v[0]->i >= 0 && v[0]->i < 100 ? (int)v[0]->i : 2;
		bufprintf(&b, "%*s", c, "");
		for (s = tttext(t, v[n - 1]); *s; s++) {
			bufputc(&b, *s);
			if (*s == '\n')
				bufprintf(&b, "%*s", c, "");
		}
		break;
	case TMISSING:
		return tttrue(v[n - 1]) ? v[n - 1] : ttstr(t, n > 1 ? tttext(t, v[0]) : "<missing>");
	}
	r = ttstr(t, b.s);
	buffree(&b);
	return r;
}

static void
ttskip(struct tt *t)
{
	t->p += strspn(t->p, " \t\r\n");
}

/* Are we at the end of an action, "}}" or " -}}"? */
static bool
ttatend(const struct tt *t)
{
	return startswith(t->p, "}}") || startswith(t->p, "-}}");
}

static void
ttclose(struct tt *t)
{
	ttskip(t);
	if (!*t->p)
		ttfail(t, "unclosed action");
	if (!ttatend(t))
		ttfail(t, "unexpected %.*s in command", (int)strcspn(t->p, " \t\r\n}"), t->p);
	t->trim = *t->p == '-';
	if (t->trim && !strchr(" \t\r\n", t->p[-1]))
		ttfail(t, "unexpected \"-\" in command");
	t->p += t->trim ? 3 : 2;
}

static size_t
ttident(const char *p)
{
	size_t n = 0;

	while (isalnum((unsigned char)p[n]) || p[n] == '_' || (p[n] & 0x80))
		n++;
	return n;
}

static bool
ttword(struct tt *t, const char *word)
{
	size_t n = strlen(word);

	if (ttident(t->p) != n || strncmp(t->p, word, n) != 0)
		return false;
	t->p += n;
	return true;
}

static const struct ynode *
ttstring(struct tt *t)
{
	static const char from[] = "abfnrtv\\\"'", to[] = "\a\b\f\n\r\t\v\\\"'";
	struct buf b = { 0 };
	const struct ynode *r;
	const char *e, *k;
	char q = *t->p++;
	int i, u;

	bufputs(&b, "");
	if (q == '`') {
		if (!(e = strchr(t->p, '`'))) {
			buffree(&b);
			ttfail(t, "unterminated raw quoted string");
		}
		bufadd(&b, t->p, (size_t)(e - t->p));
		t->p = e;
	}
	for (; *t->p != q; t->p++) {
		if (!*t->p || *t->p == '\n') {
			buffree(&b);
			ttfail(t, q == '"' ? "unterminated quoted string" : "unterminated character constant");
		}
		if (*t->p != '\\') {
			bufputc(&b, *t->p);
			continue;
		}
		t->p++;
		if (*t->p && (k = strchr(from, *t->p))) {
			bufputc(&b, to[k - from]);
			continue;
		}
		for (u = 0, i = *t->p == 'x' ? 2 : *t->p == 'u' ? 4 : -1; i > 0 && isxdigit((unsigned char)t->p[1]); i--)
			u = u * 16 + yhexdigit(*++t->p);
		if (i) {
			buffree(&b);
			ttfail(t, "invalid syntax");
		}
		ypututf8(&b, (uint32_t)u);
	}
	t->p++;
	r = q == '\'' ? ynewint(&t->d, (unsigned char)*b.s) : ttstr(t, b.s);
	buffree(&b);
	return r;
}

static const struct ynode *
ttnumber(struct tt *t)
{
	struct ynode *n = ynewstr(&t->d, "");
	size_t k = 1 + strspn(t->p + 1, "0123456789abcdefxABCDEFX_.");

	n->s = ystrndup(&t->d.a, t->p, k);
	n->len = k;
	yresolve(&t->d.a, n);
	if (n->kind != Y_INT && n->kind != Y_FLOAT)
		ttfail(t, "bad number syntax: \"%s\"", n->s);
	t->p += k;
	return n;
}

static const struct ynode *
ttmember(struct tt *t, const struct ynode *v, const char *name)
{
	if (!t->exec || !v || v->kind == Y_NULL)
		return NULL;            /* a chain through nothing is nothing */
	if (v->kind != Y_MAP)
		ttfail(t, "can't evaluate field %s in type %s", name, tttype(v));
	return t->member ? t->member(t, v, name) : yget(v, name);
}

/* operand = . | .Field | $var | literal | ( pipeline ), each with fields behind */
static const struct ynode *
ttoperand(struct tt *t)
{
	const struct ynode *v = NULL;
	const char *start = t->p, *name;
	size_t n, i, fields = 0, pos = (size_t)(start - t->text);

	if (*t->p == '(') {
		t->p++;
		v = ttpipe(t);
		if (*t->p++ != ')')
			ttfail(t, "unclosed left paren");
	} else if (*t->p == '$') {
		n = ttident(t->p + 1);
		for (i = t->nvars; i-- && (strlen(t->vars[i].name) != n || strncmp(t->vars[i].name, t->p + 1, n) != 0); )
			;
		if (i == SIZE_MAX)
			ttfail(t, "undefined variable \"$%.*s\"", (int)n, t->p + 1);
		v = t->vars[i].v;
		t->p += 1 + n;
	} else if (*t->p == '.' && !isdigit((unsigned char)t->p[1])) {
		v = t->dot;
		t->p += ttident(t->p + 1) == 0;
	} else if (*t->p && strchr("\"`'", *t->p)) {
		return ttstring(t);
	} else if (isdigit((unsigned char)*t->p) || (*t->p && strchr("+-.", *t->p))) {
		return ttnumber(t);
	} else if (ttword(t, "true")) {
		return ynewbool(&t->d, true);
	} else if (ttword(t, "false")) {
		return ynewbool(&t->d, false);
	} else if (ttword(t, "nil")) {
		return NULL;
	} else if ((n = ttident(t->p))) {
		ttfail(t, "function \"%.*s\" not defined", (int)n, t->p);
	} else {
		ttfail(t, *t->p ? "unexpected \"%c\" in operand" : "unclosed action", *t->p);
	}
	while (*t->p == '.' && (n = ttident(t->p + 1))) {
		if (fields++ == 1)      /* where Go says a chain is */
			pos = (size_t)(t->p - t->text);
		name = ystrndup(&t->d.a, t->p + 1, n);
		t->p += 1 + n;
		t->at = start;
		t->atlen = (size_t)(t->p - start);
		t->atpos = pos;
		v = ttmember(t, v, name);
	}
	return v;
}

/* Does a command or pipeline end here? Blanks are skipped. */
static bool
ttstops(struct tt *t)
{
	ttskip(t);
	return !*t->p || *t->p == '|' || *t->p == ')' || *t->p == ',' || ttatend(t);
}

/* command = operand | function operand...; last is what was piped in */
static const struct ynode *
ttcommand(struct tt *t, bool piped, const struct ynode *last)
{
	const struct ynode *v[TMPLARGS + 1];
	const char *start;
	size_t f, k, n = 0;
	bool was = t->exec;

	if (ttstops(t))
		ttfail(t, *t->p ? "missing value for command" : "unclosed action");
	start = t->p;
	k = ttident(start);
	for (f = 0; f < LEN(ttfuncs); f++)
		if (strlen(ttfuncs[f].name) == k && strncmp(ttfuncs[f].name, start, k) == 0 && (!ttfuncs[f].list || t->listfuncs))
			break;
	if (f == LEN(ttfuncs)) {
		v[0] = ttoperand(t);
		if (piped || !ttstops(t))
			ttfail(t, "can't give argument to non-function %.*s", (int)(t->p - start), start);
		return v[0];
	}
	t->p += k;
	for (; piped || !ttstops(t); n++) {
		if (n == TMPLARGS)
			ttfail(t, "too many arguments");
		if (ttstops(t)) {
			v[n++] = last;
			break;
		}
		v[n] = ttoperand(t);
		/* and, or: what decides ends the evaluation */
		if (t->exec && (f == TAND || f == TOR) && tttrue(v[n]) == (f == TOR)) {
			t->exec = false;
			v[TMPLARGS] = v[n];
		}
	}
	if ((int)n < ttfuncs[f].min || (int)n > ttfuncs[f].max)
		ttfail(t, "wrong number of args for %s: want %s%d got %zu", ttfuncs[f].name,
		    ttfuncs[f].max > ttfuncs[f].min ? "at least " : "", ttfuncs[f].min, n);
	if (was && !t->exec) {
		t->exec = true;
		return v[TMPLARGS];
	}
	if (!t->exec)
		return NULL;
	t->at = start;
	t->atlen = (size_t)(t->p - start);
	while (t->atlen && strchr(" \t\r\n", start[t->atlen - 1]))
		t->atlen--;
	t->atpos = (size_t)(start - t->text);
	return ttcall(t, (enum ttop)f, v, n);
}

/* pipeline = command { | command } */
static const struct ynode *
ttpipe(struct tt *t)
{
	const struct ynode *v;

	ttenter(t);
	v = ttcommand(t, false, NULL);
	while (ttstops(t), *t->p == '|') {
		t->p++;
		v = ttcommand(t, true, v);
	}
	t->depth--;
	return v;
}

/* The names of "$i, $v :=" or "$v =": how many; *set for the latter. */
static size_t
ttdecl(struct tt *t, const char *name[2], bool *set)
{
	const char *back = t->p;
	size_t n = 0, k;

	do {
		ttskip(t);
		if (*t->p != '$')
			break;
		k = ttident(t->p + 1);
		name[n++] = ystrndup(&t->d.a, t->p + 1, k);
		t->p += 1 + k;
		ttskip(t);
	} while (n < 2 && *t->p == ',' && t->p++);
	*set = n && *t->p == '=';
	if (*set || (n && startswith(t->p, ":="))) {
		t->p += *set ? 1 : 2;
		return n;
	}
	t->p = back;
	return 0;
}

static void
ttassign(struct tt *t, const char *name, const struct ynode *v, bool set)
{
	size_t i;

	if (set) {
		for (i = t->nvars; i--; )
			if (strcmp(t->vars[i].name, name) == 0) {
				if (t->exec)
					t->vars[i].v = v;
				return;
			}
		ttfail(t, "undefined variable \"$%s\"", name);
	}
	if (t->nvars == TMPLVARS)
		ttfail(t, "too many variables");
	t->vars[t->nvars].name = name;
	t->vars[t->nvars++].v = v;
}

static enum ttend ttlist(struct tt *t);

/* range pipeline, its body once for each item */
static enum ttend
ttrange(struct tt *t, bool was, bool *taken)
{
	const struct ynode *v, **items = NULL, *dot = t->dot;
	const char *name[2], *body;
	size_t names, i = 0, n = 0, vars = t->nvars;
	enum ttend end;
	bool set, trim;

	names = ttdecl(t, name, &set);
	v = ttpipe(t);
	ttclose(t);
	if (was && v && v->kind != Y_SEQ && v->kind != Y_MAP && v->kind != Y_NULL)
		ttfail(t, "range can't iterate over %s", tttext(t, v));
	if (was && v) {
		items = ttsorted(t, v);
		n = v->n;
	}
	*taken = n > 0;
	body = t->p;
	trim = t->trim;
	t->exec = was && n;
	t->loops++;
	do {
		t->p = body;
		t->trim = trim;
		t->dot = n ? items[i] : NULL;
		if (names == 2)
			ttassign(t, name[0], !n ? NULL : v->kind == Y_MAP ? ttstr(t, ykey(items[i])) : ynewint(&t->d, (long long)i), set);
		if (names)
			ttassign(t, name[names - 1], t->dot, set);
		end = ttlist(t);
		t->nvars = vars;
		if (t->jump == TBREAK)
			n = 0;
		if (t->jump)
			t->exec = true;
		t->jump = TNOJUMP;
	} while (++i < n);
	t->loops--;
	t->dot = dot;
	return end;
}

/* if, with, range and what follows up to their end */
static void
ttcontrol(struct tt *t, char kw)
{
	const struct ynode *v, *dot = t->dot;
	const char *name[2];
	size_t vars = t->nvars, names;
	bool was = t->exec, taken = false, set;
	enum ttend end;

	ttenter(t);
	for (;;) {
		t->exec = was && !taken && !t->jump;
		if (kw == 'r') {
			end = ttrange(t, t->exec, &taken);
		} else {
			if (kw != 'e') {
				if ((names = ttdecl(t, name, &set)) > 1)
					ttfail(t, "too many declarations in %s", kw == 'i' ? "if" : "with");
				v = ttpipe(t);
				if (names)
					ttassign(t, name[0], v, set);
				t->exec = t->exec && tttrue(v);
				if (kw == 'w')
					t->dot = v;
			}
			ttclose(t);
			taken |= t->exec;
			end = ttlist(t);
			t->dot = dot;
		}
		if (end == TEND)
			break;
		if (end == TEOF || kw == 'e')
			ttfail(t, end == TEOF ? "unexpected EOF" : "expected end; found {{else}}");
		ttskip(t);
		kw = kw != 'r' && ttword(t, "if") ? 'i' : kw != 'r' && ttword(t, "with") ? 'w' : 'e';
	}
	ttclose(t);
	t->exec = was && !t->jump;
	t->nvars = vars;
	t->depth--;
}

/* Text up to the next action, or to the end; false at the end. */
static bool
ttplain(struct tt *t)
{
	const char *p = t->p, *end = strstr(p, "{{"), *stop = end ? end : p + strlen(p);
	bool more = end, cut = more && end[2] == '-' && end[3] && strchr(" \t\r\n", end[3]);

	if (t->trim)
		p += strspn(p, " \t\r\n");
	while (cut && stop > p && strchr(" \t\r\n", stop[-1]))
		stop--;
	if (t->exec && stop > p)
		bufadd(&t->out, p, (size_t)(stop - p));
	t->trim = false;
	t->p = more ? end + (cut ? 4 : 2) : stop;
	return more;
}

/* Text and actions up to an else, an end, or the end of the text. */
static enum ttend
ttlist(struct tt *t)
{
	const struct ynode *v;
	const char *name[2], *e;
	size_t names;
	bool set;

	while (ttplain(t)) {
		ttskip(t);
		if (startswith(t->p, "/*")) {
			if (!(e = strstr(t->p, "*/")))
				ttfail(t, "unclosed comment");
			t->p = e + 2;
			ttclose(t);
		} else if (ttword(t, "if")) {
			ttcontrol(t, 'i');
		} else if (ttword(t, "with")) {
			ttcontrol(t, 'w');
		} else if (ttword(t, "range")) {
			ttcontrol(t, 'r');
		} else if (ttword(t, "end")) {
			return TEND;
		} else if (ttword(t, "else")) {
			return TELSE;
		} else if (t->loops && (ttword(t, "break") || ttword(t, "continue"))) {
			if (t->exec)
				t->jump = t->p[-1] == 'k' ? TBREAK : TCONTINUE;
			ttclose(t);
			t->exec = t->exec && !t->jump;
		} else {
			names = ttdecl(t, name, &set);
			v = ttpipe(t);
			ttclose(t);
			if (names)
				ttassign(t, name[0], v, set);
			else if (t->exec && (!v || v->kind == Y_NULL))
				bufputs(&t->out, "<no value>");
			else if (t->exec)
				ttprint(t, &t->out, v);
		}
	}
	return TEOF;
}

static void
ttpass(struct tt *t, bool exec)
{
	enum ttend end;

	t->p = t->text;
	t->dot = t->root;
	t->exec = exec;
	t->trim = false;
	t->nvars = 0;
	ttassign(t, "", t->root, false);
	if ((end = ttlist(t)) != TEOF)
		ttfail(t, "unexpected {{%s}}", end == TEND ? "end" : "else");
}

/* Render text; what t says is set before. The result is in arena a; NULL on
 * failure, with t->err and t->syntax. */
static const char *
ttrender(struct tt *t, struct yarena *a, const char *text)
{
	t->text = text;
	t->at = "";
	t->result = NULL;
	if (setjmp(t->env) == 0) {
		ttpass(t, false);
		ttpass(t, true);
		t->result = ystrndup(a, t->out.s ? t->out.s : "", t->out.len);
	}
	buffree(&t->out);
	yfree(&t->d);
	return t->result;
}

/* text with its {{variables}} replaced by the members of the map vars. A text
 * that does not parse or run stays as it is, with a warning; what: "mount
 * location" and the like, for that. Without a {{ the result is text itself. */
static const char *
expandmap(struct yarena *a, const char *text, const struct ynode *vars, const char *what)
{
	struct tt t = { .name = "", .root = vars };
	const char *r;

	if (!strstr(text, "{{"))
		return text;
	if (!(r = ttrender(&t, a, text))) {
		struct field f[] = { { "error", t.err }, { NULL, NULL } };
		logline(WARN, f, keep("Couldn't process %s %s as a template", what, bq(text)));
		r = text;
	}
	return r;
}

/* ---- 9. Configuration --------------------------------------------------- */

/* Text to tree (yaml.c), three trees to one struct: override.yaml over the
 * instance's lima.yaml over default.yaml over the built-in value of the row.
 * How the three meet is a column of the row (spec/config.md 6).  The gate of
 * plain mode comes last, so no other code asks.
 *
 * A member that nothing set and nothing fills is UNSET: NULL, -1 for a boolean,
 * LLONG_MIN for an integer.  Rows tell what is filled. */

#define UNSET   LLONG_MIN
enum { templatemax = 4 << 20 };         /* bytes of a configuration or template, spec/config.md 7.1 */

struct list  { void *v; size_t n; };
struct pair  { const char *key, *val; };
struct pairs { struct pair *v; size_t n; };     /* sorted by key */
struct range { long long from, to; };           /* both included */

struct image {                          /* also an archive and a firmware image */
	const char *location, *arch, *digest, *variant;
	const char *kernel, *kernelarch, *kerneldigest, *cmdline;
	const char *initrd, *initrdarch, *initrddigest;
	const char *vmtype;             /* of firmware */
};
struct datadisk {
	const char *name, *fstype;
	int format;                     /* -1: unset, which means yes */
	struct strs fsargs;
};
struct mount {
	const char *location, *mountpoint;      /* on the host, in the guest; absolute */
	int writable;
	int sshfscache, followsymlinks;
	const char *sftpdriver;         /* "": the best there is */
	const char *p9model, *p9version, *p9msizetext, *p9cache;
	long long p9msize;              /* bytes */
	long long queuesize;            /* virtiofs */
	int isstatic;                   /* stays in plain mode */
	bool lost;                      /* there is no such directory: the guest does not get it */
};
struct provision {
	const char *mode, *script, *file, *filedigest, *playbook, *content;
	const char *owner, *path, *permissions, *expression, *format;
	int skipdeps, overwrite;
};
struct probe {
	const char *mode, *description, *script, *file, *filedigest, *hint;
};
struct forward {                        /* after filling the ranges count, not the ports */
	int guestzero;                  /* guestIPMustBeZero */
	const char *guestip, *hostip, *guestsocket, *hostsocket, *proto;
	long long guestport, hostport;  /* as written */
	struct range guestports, hostports;
	int reverse, ignore, isstatic;
};
struct cthost {                         /* copyToHost */
	const char *guest, *host;
	int deleteonstop;
};
struct network {
	const char *lima, *socket, *mac, *interface;
	int vznat;
	long long metric;
};

struct conf {                           /* its texts live as long as the command */
	const char *errs;               /* what is wrong, a line each; NULL: nothing */
	const char *name, *dir;         /* instance; dir ends without slash */
	const char *version;            /* lima-version; NULL: none */
	bool foreign;                   /* made by limactl, not by us: its rules hold */
	long long made;                 /* the limactl it was made by, see version3 */
	int autoforward;                /* every guest listener on localhost, beside the rules */
	const char *minversion, *vmtype, *os, *arch;
	struct ynode *vmopts, *osopts;  /* as written, all drivers; may be NULL */
	struct ynode *base;             /* NULL in what is whole */
	const char *minqemu;            /* vmOpts.qemu.minimumVersion */
	struct pairs cputype;           /* vmOpts.qemu.cpuType: arch, CPU */
	struct pairs oldcputype;        /* the deprecated top-level one */
	struct list images;             /* struct image */
	long long cpus, memory, disk;   /* bytes */
	const char *memorytext, *disktext;
	struct list disks;              /* struct datadisk */
	struct list mounts;             /* struct mount, in the order of mounting */
	struct strs unsupported;        /* mount types the guest lacks */
	const char *mounttype;          /* NULL: the driver chooses */
	int inotify;
	long long sshport;
	int loadpubkeys, forwardagent, forwardx11, forwardx11trusted, overvsock;
	int legacybios;
	struct list firmware;           /* struct image */
	const char *audiodevice, *audiointerface, *display, *vncdisplay;
	struct list provisions;         /* struct provision */
	int upgrade;
	int containerdsystem, containerduser;
	bool lazyengine;                /* containerd.user is so because nobody said otherwise */
	struct list archives;           /* struct image */
	const char *prefix, *message;
	struct list probes;             /* struct probe */
	struct list forwards;           /* struct forward, the first that fits wins */
	struct list copies;             /* struct cthost */
	struct list networks;           /* struct network */
	struct pairs env, param;
	struct strs dns;
	int resolver, resolveripv6;
	struct pairs hosts;             /* hostResolver.hosts */
	int proxyenv;
	int noca;                       /* caCerts.removeDefaults */
	struct strs cafiles, cacerts;
	int rosetta, rosettabinfmt, nested;
	int plain;
	bool agent;                     /* the guest agent runs; not in plain mode */
	const char *timezone;           /* "": leave the guest's alone */
	const char *user, *comment, *home, *shell;
	long long uid;
	int sudo, tpm;
	bool strict;                    /* it is being made: what it names has to be there */
	bool stock;                     /* the guest keeps cloud-init at every boot; set by the gate */
};

enum ktype { KSTR, KINT, KBOOL, KSIZE, KIP, KRANGE, KSTRS, KPAIRS, KRAW, KFILE, KLIST };
enum kmerge {
	MFIRST,         /* override, instance, default: the first that is set */
	MOWN,           /* the instance's alone */
	MCAT,           /* lists joined: override, instance, default */
	MUNIQ,          /* joined from the other end, without repetitions */
	MTOP,           /* the first list that is not empty */
	MKEYED,         /* default, instance, override; equal keys update */
};
struct key {
	const char *path;               /* dots lead into maps */
	enum ktype type;
	size_t off;                     /* in struct conf, or in the item */
	const char *def;                /* built-in value; NULL: see fill */
	const char *(*fill)(const struct conf *);       /* computed value; NULL: stays unset */
	const struct key *items;        /* KLIST: rows of an item, ended by a NULL path */
	size_t size;                    /* KLIST: of an item */
	enum kmerge merge;
	size_t text;                    /* KSIZE: where the text goes; KFILE: where the digest */
	bool brief;                     /* put out only when neither 0, false nor empty */
	bool blank;                     /* an empty text is a value, not the default */
	bool mute;                      /* not put out: part of a KRAW above */
	bool later;                     /* read and checked, has no effect yet */
};

/* X.Y.Z as a number, -1 when it is none.  A leading v and a tail from - are cut. */
static long long
version3(const char *s, bool *tail)
{
	long long v[3];

	s += *s == 'v';
	*tail = strchr(s, '-') != NULL;
	if (dotted(s, 3, v, &s) != 3 || (*s && *s != '-' && strcmp(s, ".m") != 0))
		return -1;
	return (v[0] * 1000 + v[1]) * 1000 + v[2];
}

static const char *
fillarch(const struct conf *c)
{
	(void)c;
	return host.arch;
}

/* Those for which the archive of containerd is made. */
static const char *
fillengine(const struct conf *c)
{
	size_t i;

	for (i = 0; i < LEN(enginearchives) && strcmp(enginearchives[i].arch, c->arch) != 0; i++)
		;
	return i < LEN(enginearchives) ? "true" : "false";
}

/* What the host has is asked once, not for each of a thousand instances. */
static const char *
fillcpus(const struct conf *c)
{
	static const char *text;
	int n;

	(void)c;
	if (!text) {
		n = hostcpus();
		text = keep("%d", n < defcpus ? n : defcpus);
	}
	return text;
}

static const char *
fillmemory(const struct conf *c)
{
	static const char *text;
	struct sysinfo si;
	long long half = defmemory;

	(void)c;
	if (!text) {
		if (sysinfo(&si) == 0)
			half = (long long)((unsigned long long)si.totalram * si.mem_unit / 2);
		text = printsize(half < defmemory ? half : defmemory);
	}
	return text;
}

static const char *
filltimezone(const struct conf *c)
{
	static const char *text;

	(void)c;
	if (!text)
		text = hosttimezone();
	return text;
}

/* Guest and host are of one mind where the home is; limactl before 2.1 and ours
 * say .linux, limactl 2.1 and later .guest. */
static const char *
fillhome(const struct conf *c)
{
	return keep("/home/%s.%s", c->user ? c->user : fallbackuser, c->foreign && c->made >= 2001000 ? "guest" : "linux");
}

static bool
validuser(const char *s)
{
	return (islower((unsigned char)*s) || *s == '_') &&
	    s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-")] == '\0' && strlen(s) <= 32;
}

static const char *
filluser(const struct conf *c)
{
	(void)c;
	if (!host.login || !validuser(host.login) || host.uid == 0 || oneof(host.login, reservedusers, LEN(reservedusers)))
		return fallbackuser;
	return host.login;
}

static const char *
fillcomment(const struct conf *c)
{
	(void)c;
	return keep("%.*s", (int)strcspn(host.gecos ? host.gecos : "", ","), host.gecos ? host.gecos : "");
}

/* 0 is root's, 65534 nobody's; 65535 and the last are "no uid" to system calls. */
static bool
badguestuid(long long uid)
{
	return uid <= 0 || uid == 65534 || uid == 65535 || uid >= 4294967294LL;
}

static const char *
filluid(const struct conf *c)
{
	(void)c;
	return keep("%lld", badguestuid(host.uid) ? fallbackuid : (long long)host.uid);
}

#define O(m) offsetof(struct image, m)
#define LOCATION(a, l, r, g) \
	{ .path = a "location", .type = KSTR, .off = O(l) }, \
	{ .path = a "arch",     .type = KSTR, .off = O(r) }, \
	{ .path = a "digest",   .type = KSTR, .off = O(g), .brief = true }
static const struct key imagekeys[] = {
	LOCATION("", location, arch, digest),
	LOCATION("kernel.", kernel, kernelarch, kerneldigest),
	{ .path = "kernel.cmdline", .type = KSTR, .off = O(cmdline), .brief = true },
	LOCATION("initrd.", initrd, initrdarch, initrddigest),
	{ .path = "variant",        .type = KSTR, .off = O(variant), .brief = true },
	{ .path = NULL },
};
static const struct key archivekeys[] = {
	LOCATION("", location, arch, digest),
	{ .path = NULL },
};
static const struct key firmwarekeys[] = {
	LOCATION("", location, arch, digest),
	{ .path = "vmType", .type = KSTR, .off = O(vmtype), .brief = true },
	{ .path = NULL },
};
#undef O
#undef LOCATION
#define O(m) offsetof(struct datadisk, m)
static const struct key diskkeys[] = {
	{ .path = "name",   .type = KSTR,  .off = O(name) },    /* the first: an item may be this text alone */
	{ .path = "format", .type = KBOOL, .off = O(format) },
	{ .path = "fsType", .type = KSTR,  .off = O(fstype) },
	{ .path = "fsArgs", .type = KSTRS, .off = O(fsargs), .brief = true },
	{ .path = NULL },
};
#undef O
#define O(m) offsetof(struct mount, m)
static const struct key mountkeys[] = {
	{ .path = "location",             .type = KSTR,  .off = O(location) },
	{ .path = "mountPoint",           .type = KSTR,  .off = O(mountpoint) },
	{ .path = "writable",             .type = KBOOL, .off = O(writable), .def = "false" },
	{ .path = "sshfs.cache",          .type = KBOOL, .off = O(sshfscache), .def = "true" },
	{ .path = "sshfs.followSymlinks", .type = KBOOL, .off = O(followsymlinks), .def = "false" },
	{ .path = "sshfs.sftpDriver",     .type = KSTR,  .off = O(sftpdriver), .def = "" },
	{ .path = "9p.securityModel",     .type = KSTR,  .off = O(p9model), .def = "none" },
	{ .path = "9p.protocolVersion",   .type = KSTR,  .off = O(p9version), .def = "9p2000.L" },
	{ .path = "9p.msize",             .type = KSIZE, .off = O(p9msize), .text = O(p9msizetext), .def = "128KiB" },
	{ .path = "9p.cache",             .type = KSTR,  .off = O(p9cache) },
	{ .path = "virtiofs.queueSize",   .type = KINT,  .off = O(queuesize) },
	{ .path = "static",               .type = KBOOL, .off = O(isstatic), .def = "false", .brief = true },
	{ .path = NULL },
};
#undef O
#define O(m) offsetof(struct provision, m)
static const struct key provisionkeys[] = {
	{ .path = "mode",        .type = KSTR,  .off = O(mode), .def = "system" },
	{ .path = "skipDefaultDependencyResolution", .type = KBOOL, .off = O(skipdeps) },
	{ .path = "script",      .type = KSTR,  .off = O(script), .def = "" },
	{ .path = "file",        .type = KFILE, .off = O(file), .text = O(filedigest) },
	{ .path = "playbook",    .type = KSTR,  .off = O(playbook), .brief = true },
	{ .path = "content",     .type = KSTR,  .off = O(content) },
	{ .path = "overwrite",   .type = KBOOL, .off = O(overwrite) },
	{ .path = "owner",       .type = KSTR,  .off = O(owner) },
	{ .path = "path",        .type = KSTR,  .off = O(path) },
	{ .path = "permissions", .type = KSTR,  .off = O(permissions) },
	{ .path = "expression",  .type = KSTR,  .off = O(expression) },
	{ .path = "format",      .type = KSTR,  .off = O(format) },
	{ .path = NULL },
};
#undef O
#define O(m) offsetof(struct probe, m)
static const struct key probekeys[] = {
	{ .path = "mode",        .type = KSTR,  .off = O(mode), .def = "readiness" },
	{ .path = "description", .type = KSTR,  .off = O(description) },
	{ .path = "script",      .type = KSTR,  .off = O(script), .def = "" },
	{ .path = "file",        .type = KFILE, .off = O(file), .text = O(filedigest) },
	{ .path = "hint",        .type = KSTR,  .off = O(hint), .brief = true },
	{ .path = NULL },
};
#undef O
#define O(m) offsetof(struct forward, m)
static const struct key forwardkeys[] = {
	{ .path = "guestIPMustBeZero", .type = KBOOL,  .off = O(guestzero) },
	{ .path = "guestIP",           .type = KIP,    .off = O(guestip) },
	{ .path = "guestPort",         .type = KINT,   .off = O(guestport), .def = "0", .brief = true },
	{ .path = "guestPortRange",    .type = KRANGE, .off = O(guestports) },
	{ .path = "guestSocket",       .type = KSTR,   .off = O(guestsocket), .brief = true },
	{ .path = "hostIP",            .type = KIP,    .off = O(hostip), .def = "127.0.0.1" },
	{ .path = "hostPort",          .type = KINT,   .off = O(hostport), .def = "0", .brief = true },
	{ .path = "hostPortRange",     .type = KRANGE, .off = O(hostports) },
	{ .path = "hostSocket",        .type = KSTR,   .off = O(hostsocket), .brief = true },
	{ .path = "proto",             .type = KSTR,   .off = O(proto), .def = "any" },
	{ .path = "reverse",           .type = KBOOL,  .off = O(reverse), .def = "false", .brief = true },
	{ .path = "ignore",            .type = KBOOL,  .off = O(ignore), .def = "false", .brief = true },
	{ .path = "static",            .type = KBOOL,  .off = O(isstatic), .def = "false", .brief = true },
	{ .path = NULL },
};
#undef O
#define O(m) offsetof(struct cthost, m)
static const struct key copykeys[] = {
	{ .path = "guest",        .type = KSTR,  .off = O(guest), .def = "" },
	{ .path = "host",         .type = KSTR,  .off = O(host), .def = "" },
	{ .path = "deleteOnStop", .type = KBOOL, .off = O(deleteonstop), .def = "false", .brief = true },
	{ .path = NULL },
};
#undef O
#define O(m) offsetof(struct network, m)
static const struct key networkkeys[] = {
	{ .path = "lima",       .type = KSTR,  .off = O(lima), .brief = true },
	{ .path = "socket",     .type = KSTR,  .off = O(socket), .brief = true },
	{ .path = "vzNAT",      .type = KBOOL, .off = O(vznat), .brief = true },
	{ .path = "macAddress", .type = KSTR,  .off = O(mac) },
	{ .path = "interface",  .type = KSTR,  .off = O(interface) },
	{ .path = "metric",     .type = KINT,  .off = O(metric), .def = "100" },
	{ .path = NULL },
};
#undef O
#define C(m) offsetof(struct conf, m)
#define ITEMS(rows, type) .items = rows, .size = sizeof(type), .merge = MCAT
/* In the order of spec/cli.md 9.6, which is the order of every dump. */
static const struct key confkeys[] = {
	{ .path = "minimumLimaVersion",     .type = KSTR,  .off = C(minversion), .merge = MOWN, .brief = true },
	{ .path = "vmType",                 .type = KSTR,  .off = C(vmtype), .def = "qemu" },
	{ .path = "vmOpts",                 .type = KRAW,  .off = C(vmopts) },
	{ .path = "vmOpts.qemu.minimumVersion", .type = KSTR, .off = C(minqemu), .mute = true },
	{ .path = "vmOpts.qemu.cpuType",    .type = KPAIRS, .off = C(cputype), .mute = true },
	{ .path = "os",                     .type = KSTR,  .off = C(os), .def = "Linux" },
	{ .path = "arch",                   .type = KSTR,  .off = C(arch), .fill = fillarch },
	{ .path = "images",                 .type = KLIST, .off = C(images), ITEMS(imagekeys, struct image) },
	{ .path = "cpuType",                .type = KPAIRS, .off = C(oldcputype), .merge = MOWN, .brief = true },
	{ .path = "cpus",                   .type = KINT,  .off = C(cpus), .fill = fillcpus },
	{ .path = "memory",                 .type = KSIZE, .off = C(memory), .text = C(memorytext), .fill = fillmemory },
	{ .path = "disk",                   .type = KSIZE, .off = C(disk), .text = C(disktext), .def = defdisk },
	{ .path = "additionalDisks",        .type = KLIST, .off = C(disks), ITEMS(diskkeys, struct datadisk), .brief = true },
	{ .path = "mounts",                 .type = KLIST, .off = C(mounts), .items = mountkeys, .size = sizeof(struct mount), .merge = MKEYED, .brief = true },
	{ .path = "mountTypesUnsupported",  .type = KSTRS, .off = C(unsupported), .merge = MCAT, .brief = true },
	{ .path = "mountType",              .type = KSTR,  .off = C(mounttype) },
	{ .path = "mountInotify",           .type = KBOOL, .off = C(inotify), .def = "false" },
	{ .path = "ssh.localPort",          .type = KINT,  .off = C(sshport), .def = "0" },
	{ .path = "ssh.loadDotSSHPubKeys",  .type = KBOOL, .off = C(loadpubkeys), .def = "false" },
	{ .path = "ssh.forwardAgent",       .type = KBOOL, .off = C(forwardagent), .def = "false" },
	{ .path = "ssh.forwardX11",         .type = KBOOL, .off = C(forwardx11), .def = "false" },
	{ .path = "ssh.forwardX11Trusted",  .type = KBOOL, .off = C(forwardx11trusted), .def = "false" },
	{ .path = "ssh.overVsock",          .type = KBOOL, .off = C(overvsock), .later = true },
	{ .path = "firmware.legacyBIOS",    .type = KBOOL, .off = C(legacybios), .def = "false" },
	{ .path = "firmware.images",        .type = KLIST, .off = C(firmware), ITEMS(firmwarekeys, struct image), .brief = true },
	{ .path = "audio.device",           .type = KSTR,  .off = C(audiodevice), .def = "" },
	{ .path = "audio.interface",        .type = KSTR,  .off = C(audiointerface), .def = "" },
	{ .path = "video.display",          .type = KSTR,  .off = C(display), .def = "none" },
	{ .path = "video.vnc.display",      .type = KSTR,  .off = C(vncdisplay) },
	{ .path = "provision",              .type = KLIST, .off = C(provisions), ITEMS(provisionkeys, struct provision), .brief = true },
	{ .path = "upgradePackages",        .type = KBOOL, .off = C(upgrade), .def = "false" },
	{ .path = "containerd.system",      .type = KBOOL, .off = C(containerdsystem), .def = "false" },
	{ .path = "containerd.user",        .type = KBOOL, .off = C(containerduser), .fill = fillengine },
	{ .path = "containerd.archives",    .type = KLIST, .off = C(archives), ITEMS(archivekeys, struct image) },
	{ .path = "guestInstallPrefix",     .type = KSTR,  .off = C(prefix), .def = "/usr/local" },
	{ .path = "probes",                 .type = KLIST, .off = C(probes), ITEMS(probekeys, struct probe), .brief = true },
	{ .path = "portForwards",           .type = KLIST, .off = C(forwards), ITEMS(forwardkeys, struct forward), .brief = true },
	{ .path = "copyToHost",             .type = KLIST, .off = C(copies), ITEMS(copykeys, struct cthost), .brief = true },
	{ .path = "message",                .type = KSTR,  .off = C(message), .merge = MOWN, .brief = true },
	{ .path = "networks",               .type = KLIST, .off = C(networks), .items = networkkeys, .size = sizeof(struct network), .merge = MKEYED, .brief = true },
	{ .path = "env",                    .type = KPAIRS, .off = C(env), .brief = true },
	{ .path = "param",                  .type = KPAIRS, .off = C(param), .brief = true },
	{ .path = "dns",                    .type = KSTRS, .off = C(dns), .merge = MTOP, .brief = true },
	{ .path = "hostResolver.enabled",   .type = KBOOL, .off = C(resolver), .def = "true" },
	{ .path = "hostResolver.ipv6",      .type = KBOOL, .off = C(resolveripv6), .def = "false" },
	{ .path = "hostResolver.hosts",     .type = KPAIRS, .off = C(hosts), .brief = true },
	{ .path = "propagateProxyEnv",      .type = KBOOL, .off = C(proxyenv), .def = "true" },
	{ .path = "caCerts.removeDefaults", .type = KBOOL, .off = C(noca), .def = "false" },
	{ .path = "caCerts.files",          .type = KSTRS, .off = C(cafiles), .merge = MUNIQ, .brief = true },
	{ .path = "caCerts.certs",          .type = KSTRS, .off = C(cacerts), .merge = MUNIQ, .brief = true },
	{ .path = "rosetta.enabled",        .type = KBOOL, .off = C(rosetta), .merge = MOWN, .brief = true, .later = true },
	{ .path = "rosetta.binfmt",         .type = KBOOL, .off = C(rosettabinfmt), .merge = MOWN, .brief = true, .later = true },
	{ .path = "plain",                  .type = KBOOL, .off = C(plain), .def = "false" },
	{ .path = "timezone",               .type = KSTR,  .off = C(timezone), .fill = filltimezone, .blank = true },
	{ .path = "nestedVirtualization",   .type = KBOOL, .off = C(nested), .def = "false", .later = true },
	{ .path = "user.name",              .type = KSTR,  .off = C(user), .fill = filluser },
	{ .path = "user.comment",           .type = KSTR,  .off = C(comment), .fill = fillcomment, .blank = true },
	{ .path = "user.home",              .type = KSTR,  .off = C(home), .fill = fillhome },
	{ .path = "user.shell",             .type = KSTR,  .off = C(shell), .def = "/bin/bash" },
	{ .path = "user.uid",               .type = KINT,  .off = C(uid), .fill = filluid },
	{ .path = "user.passwordlessSudo",  .type = KBOOL, .off = C(sudo), .def = "true" },
	{ .path = "tpm",                    .type = KBOOL, .off = C(tpm), .def = "false" },
	{ .path = "osOpts",                 .type = KRAW,  .off = C(osopts) },
	{ .path = "base",                   .type = KRAW,  .off = C(base), .merge = MOWN, .mute = true },
	{ .path = NULL },
};
#undef C
#undef ITEMS

/* lima-NAME with . and _ turned into - : a host name. */
static const char *
guesthostname(const char *name)
{
	char *s = keep("lima-%s", name), *p;

	for (p = s; *p; p++)
		if (*p == '.' || *p == '_')
			*p = '-';
	return s;
}

enum { OVERRIDE, INSTANCE, DEFAULT, NLAYER };
struct layers {
	struct conf *c;
	const struct ynode *root[NLAYER];
	const char *where[NLAYER];      /* for messages: main file `PATH` ... */
	const struct ynode *val[LEN(confkeys)][NLAYER];         /* what each file gives a row */
	bool warn;                      /* name unknown keys and those without effect */
	bool told[NLAYER];              /* of an unknown key */
	struct ydoc vars;               /* for expand: */
	struct ynode *guest, *host;
};

/* What is asked once in the life of a process: a list has a thousand instances. */
static struct {
	struct ydoc doc[NLAYER], raw;
	const char *where[NLAYER], *err[NLAYER];
	bool read;
} shared;

static void PRINTF(2, 3)
conferr(struct conf *c, const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		die("out of memory");
	va_end(ap);
	c->errs = c->errs ? keep("%s\n%s", c->errs, s) : keep("%s", s);
	free(s);
}

static const char *const kindname[] = {
	[Y_NULL] = "null", [Y_BOOL] = "a boolean", [Y_INT] = "an integer", [Y_FLOAT] = "a number",
	[Y_STR] = "a string", [Y_SEQ] = "a sequence", [Y_MAP] = "a mapping",
};

static void
badtype(struct layers *l, int i, const struct ynode *n, const char *path, const char *want)
{
	if (n->kind == Y_SEQ || n->kind == Y_MAP || strcmp(want, "sequence") == 0 || strcmp(want, "mapping") == 0)
		conferr(l->c, "failed to unmarshal YAML (%s): [%d:%d] field `%s`: %s was used where %s is expected",
		    l->where[i], n->line, n->col, path, strchr(kindname[n->kind], ' ') ? strchr(kindname[n->kind], ' ') + 1 : kindname[n->kind],
		    startswith(want, "a") ? want + 2 + startswith(want, "an") : want);
	else
		conferr(l->c, "failed to unmarshal YAML (%s): [%d:%d] field `%s`: expected %s, got %s %s",
		    l->where[i], n->line, n->col, path, want, kindname[n->kind], n->s ? bq(n->s) : "");
}

static long long
nodeint(struct layers *l, int i, const struct ynode *n, const char *path)
{
	long long v;
	double f;
	char *end;

	if (n->kind == Y_FLOAT && n->f > -9e18 && n->f < 9e18)
		return (long long)n->f;
	if (n->kind == Y_INT)
		return n->i;
	if (n->kind == Y_STR && parsenum(n->s, 0, LLONG_MAX, &v) == 0)  /* "80", --port-forward writes it so */
		return v;
	if (n->kind == Y_STR && isdigit((unsigned char)*n->s) && (f = strtod(n->s, &end)) < 9e18 && !*end)
		return (long long)f;    /* 1e3 without a dot is a text */
	if (n->kind != Y_NULL)
		badtype(l, i, n, path, "an integer");
	return 0;
}

/* The text of a scalar for as long as the command lives: the tree goes. */
static const char *
nodetext(const struct ynode *n)
{
	const char *s = ystr(n);

	return s ? ystrndup(&perm, s, strlen(s)) : NULL;
}

/* Add the scalars of a sequence; MUNIQ leaves out what is there. */
static void
addstrs(struct layers *l, int i, const struct key *k, struct strs *out, const struct ynode *seq)
{
	const char **v = yalloc(&perm, (out->n + seq->n + 1) * sizeof *v), *s;
	const struct ynode *n;
	size_t x;

	if (out->n)
		memcpy(v, out->v, out->n * sizeof *v);
	out->v = v;
	for (n = seq->first; n; n = n->next) {
		if (!(s = n->kind == Y_NULL ? "" : nodetext(n))) {
			badtype(l, i, n, k->path, "a string");
			continue;
		}
		for (x = 0; k->merge == MUNIQ && x < out->n && strcmp(out->v[x], s) != 0; x++)
			;
		if (k->merge != MUNIQ || x == out->n)
			v[out->n++] = s;
	}
}

static int
paircmp(const void *a, const void *b)
{
	return strcmp(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

/* Add the members of a map of texts that are not there yet. */
static void
addpairs(struct layers *l, int i, const struct key *k, struct pairs *out, const struct ynode *map)
{
	struct pair *v = yalloc(&perm, (out->n + map->n + 1) * sizeof *v);
	const struct ynode *n;
	const char *s;
	size_t x, had = out->n;

	if (had)
		memcpy(v, out->v, had * sizeof *v);
	out->v = v;
	for (n = map->first; n; n = n->next) {
		if (!(s = n->kind == Y_NULL ? "" : nodetext(n))) {
			badtype(l, i, n, keep("%s.%s", k->path, ykey(n)), "a string");
			continue;
		}
		for (x = 0; x < had && strcmp(v[x].key, ykey(n)) != 0; x++)
			;
		if (x == had)
			v[out->n++] = (struct pair){ ystrndup(&perm, ykey(n), strlen(ykey(n))), s };
	}
	if (out->n)
		qsort(v, out->n, sizeof *v, paircmp);
}

static void
putsize(const struct key *k, void *base, const char *s)
{
	long long *size = (long long *)((char *)base + k->off);
	char why[128];

	*(const char **)((char *)base + k->text) = s;
	if (parsesize(s, size, why) < 0)
		*size = -1;     /* validation says it */
}

/* Put the value n, which is not null and of layer i, into the member of row k. */
static void
putnode(struct layers *l, const struct key *k, void *base, int i, const struct ynode *n)
{
	void *at = (char *)base + k->off;
	struct range *r = at;
	unsigned char ip[16];
	char text[INET6_ADDRSTRLEN];
	const char *s = nodetext(n);
	int af;

	switch (k->type) {
	case KSTR:
		if (!s)
			badtype(l, i, n, k->path, "a string");
		*(const char **)at = s;
		break;
	case KINT:
		*(long long *)at = nodeint(l, i, n, k->path);
		break;
	case KBOOL:
		if (n->kind != Y_BOOL)
			badtype(l, i, n, k->path, "a boolean (true or false)");
		*(int *)at = (int)n->i != 0;
		break;
	case KSIZE:
		if (!s)
			badtype(l, i, n, k->path, "a string");
		else if (*s)
			putsize(k, base, s);
		break;
	case KIP:
		if (!s || !*s)
			break;
		af = strchr(s, ':') ? AF_INET6 : AF_INET;
		if (inet_pton(af, s, ip) != 1)
			conferr(l->c, "failed to unmarshal YAML (%s): [%d:%d] invalid IP address: %s", l->where[i], n->line, n->col, s);
		else if (inet_ntop(af, ip, text, sizeof text))
			*(const char **)at = ystrndup(&perm, text, strlen(text));
		break;
	case KRANGE:
		if (n->kind != Y_SEQ)
			badtype(l, i, n, k->path, "sequence");
		else if (n->n > 2)
			conferr(l->c, "failed to unmarshal YAML (%s): [%d:%d] field `%s` takes two numbers, got %zu", l->where[i], n->line, n->col, k->path, n->n);
		else {
			r->from = n->first ? nodeint(l, i, n->first, k->path) : 0;
			r->to = n->n == 2 ? nodeint(l, i, n->last, k->path) : 0;
		}
		break;
	case KSTRS:
		if (n->kind != Y_SEQ)
			badtype(l, i, n, k->path, "sequence");
		else
			addstrs(l, i, k, at, n);
		break;
	case KPAIRS:
		if (n->kind != Y_MAP)
			badtype(l, i, n, k->path, "mapping");
		else
			addpairs(l, i, k, at, n);
		break;
	case KFILE:
		*(const char **)at = s ? s : n->kind == Y_MAP && (s = nodetext(yget(n, "url"))) ? s : "";
		*(const char **)((char *)base + k->text) = n->kind == Y_MAP ? nodetext(yget(n, "digest")) : NULL;
		break;
	case KRAW:
	case KLIST:
		break;
	}
}

/* Put a built-in text. */
static void
puttext(const struct key *k, void *base, const char *s)
{
	void *at = (char *)base + k->off;

	if (k->type == KINT)
		*(long long *)at = strtoll(s, NULL, 10);
	else if (k->type == KBOOL)
		*(int *)at = *s == 't';
	else if (k->type == KSIZE)
		putsize(k, base, s);
	else
		*(const char **)at = s;
}

/* Is the member unset, or empty where that means the default? */
static bool
isunset(const struct key *k, const void *base)
{
	const void *at = (const char *)base + (k->type == KSIZE ? k->text : k->off);
	const char *s;

	if (k->type == KINT)
		return *(const long long *)at == UNSET;
	if (k->type == KBOOL)
		return *(const int *)at < 0;
	if (k->type == KSTR || k->type == KIP || k->type == KSIZE || k->type == KFILE)
		return !(s = *(const char *const *)at) || (!*s && !k->blank);
	return false;
}

/* All members of rows unset. */
static void
unsetall(const struct key *rows, void *base)
{
	for (; rows->path; rows++)
		if (rows->type == KINT)
			*(long long *)((char *)base + rows->off) = UNSET;
		else if (rows->type == KBOOL)
			*(int *)((char *)base + rows->off) = -1;
}

/* Fill what is unset out of the rows. */
static void
filldefs(struct conf *c, const struct key *rows, void *base)
{
	for (; rows->path; rows++)
		if ((rows->def || rows->fill) && isunset(rows, base))
			puttext(rows, base, rows->fill ? rows->fill(c) : rows->def);
}

/* Is path a row, or a map on the way to one? */
static const struct key *
keyrow(const struct key *rows, const char *path, bool *onway)
{
	size_t n = strlen(path);

	for (*onway = false; rows->path; rows++) {
		if (*rows->path != *path || strncmp(rows->path, path, n) != 0)
			continue;
		if (!rows->path[n])
			return rows;
		*onway |= rows->path[n] == '.';
	}
	return NULL;
}

/* The member below prefix whose name is nearly that of path, as a hint; or "". */
static const char *
nearkey(const struct key *rows, const char *prefix, const char *path)
{
	size_t n = strlen(prefix), len = strlen(path + n), d, least = SIZE_MAX;
	const char *name, *best = "";

	for (; rows->path; rows++) {
		if (strncmp(rows->path, prefix, n) != 0)
			continue;
		name = keep("%.*s", (int)strcspn(rows->path + n, "."), rows->path + n);
		d = (strlen(name) > len ? strlen(name) - len : len - strlen(name)) + (tolower((unsigned char)*name) == tolower((unsigned char)path[n]) ? 0 : 9);
		if (d < least && (similar(path + n, name) || strcasecmp(path + n, name) == 0)) {
			best = keep("; did you mean \"%s%s\"?", prefix, name);
			least = d;
		}
	}
	return best;
}

/* Walk a map of layer i: the values of top-level rows go to l->val, those of an
 * item to its members.  Names the first unknown key of the file, and each key
 * without effect yet.  prefix: "ssh." and the like. */
static void
walkkeys(struct layers *l, int i, const struct key *rows, const struct ynode *map, const char *prefix, void *item)
{
	const struct ynode *n;
	const struct key *k;
	const char *path;
	bool onway;

	for (n = map->first; n; n = n->next) {
		path = *prefix ? keep("%s%s", prefix, ykey(n)) : ykey(n);
		k = keyrow(rows, path, &onway);
		if (k) {
			if (!item)
				l->val[k - confkeys][i] = n;
			else if (n->kind != Y_NULL)
				putnode(l, k, item, i, n);
			/* null and empty mean nothing, and neither does a false */
			if (l->warn && k->later && n->kind != Y_NULL && (n->kind != Y_BOOL || n->i) && (n->s ? *n->s != 0 : n->n > 0))
				logline(WARN, (struct field[]){ { "comment", keep("%s:%d", l->where[i], n->key->line) }, { NULL, NULL } },
				    keep(".%s is not implemented yet for QEMU driver", path));
		} else if (onway && n->kind == Y_MAP) {
			walkkeys(l, i, rows, n, keep("%s.", path), item);
		} else if (onway && n->kind != Y_NULL) {
			badtype(l, i, n, path, "mapping");
		} else if (!onway && l->warn && !l->told[i]) {
			struct field f[] = {
				{ "comment", l->where[i] },
				{ "error", keep("[%d:%d] unknown field \"%s\"%s", n->key->line, n->key->col, path, nearkey(rows, prefix, path)) },
				{ NULL, NULL },
			};
			logline(WARN, f, "Non-strict YAML detected; please check for typos");
			l->told[i] = true;
		}
	}
}

/* Add the items of a list of layer i; at: room for them. */
static size_t
putitems(struct layers *l, int i, const struct key *k, const struct ynode *seq, char *at)
{
	const struct ynode *it;
	size_t n = 0;

	for (it = seq->first; it; it = it->next, n++, at += k->size) {
		unsetall(k->items, at);
		if (it->kind == Y_MAP)
			walkkeys(l, i, k->items, it, "", at);
		else if (k->items == diskkeys && it->kind != Y_NULL && it->kind != Y_SEQ)
			putnode(l, k->items, at, i, it);
		else if (it->kind != Y_NULL)
			badtype(l, i, it, k->path, "mapping");
	}
	return n;
}

static const int fromtop[] = { OVERRIDE, INSTANCE, DEFAULT }, frombottom[] = { DEFAULT, INSTANCE, OVERRIDE };

/* What the layers say of row k, which is no KRAW, into its member. */
static void
merge(struct layers *l, const struct key *k)
{
	const int *order = k->merge == MUNIQ || k->merge == MKEYED ? frombottom : fromtop;
	const struct ynode *n, **val = l->val[k - confkeys];
	void *at = (char *)l->c + k->off;
	struct list *out = at;
	size_t total = 0;
	int x, i;

	for (x = 0; x < NLAYER; x++) {
		n = val[i = order[x]];
		if (!n || n->kind == Y_NULL || (k->merge == MOWN && i != INSTANCE) || k->mute) {
			val[i] = NULL;
		} else if (k->type == KLIST && n->kind != Y_SEQ) {
			badtype(l, i, n, k->path, "sequence");
			val[i] = NULL;
		} else if (k->type == KLIST)
			total += n->n;
	}
	if (k->type == KLIST)
		out->v = yalloc(&perm, (total + 1) * k->size);
	for (x = 0; x < NLAYER; x++) {
		if (!(n = val[i = order[x]]))
			continue;
		if (k->type == KLIST)
			out->n += putitems(l, i, k, n, (char *)out->v + out->n * k->size);
		else if (k->type == KSTRS && n->kind == Y_SEQ && !n->n)
			continue;
		else
			putnode(l, k, l->c, i, n);
		if (k->merge == MTOP || (k->merge <= MOWN && k->type != KPAIRS))
			break;
	}
}

/* vmOpts and osOpts: the driver's or system's whole value, of the first file
 * that has one. */
static void
mergeraw(struct layers *l, const struct key *k)
{
	const struct ynode *n, *m;
	struct ynode *out = NULL;
	int i;

	for (i = 0; i < NLAYER; i++) {
		n = l->val[k - confkeys][i];
		if (!n || (k->merge == MOWN && i != INSTANCE) || (n->kind == Y_NULL && k->merge != MOWN))
			continue;
		if (k->merge == MOWN)
			out = ycopy(&shared.raw, n);
		else if (n->kind != Y_MAP)
			badtype(l, i, n, k->path, "mapping");
		else
			for (m = n->first; m; m = m->next) {
				out = out ? out : ynewmap(&shared.raw);
				if (!yget(out, ykey(m)))
					(void)yput(&shared.raw, out, ykey(m), ycopy(&shared.raw, m));
			}
	}
	*(struct ynode **)((char *)l->c + k->off) = out;
}

/* What this driver takes out of vmOpts. */
static void
qemuopts(struct layers *l)
{
	const struct ynode *q = yget(l->c->vmopts, "qemu"), *n;
	const struct key *k;

	for (k = confkeys; q && k->path; k++)
		if (startswith(k->path, "vmOpts.qemu.") && (n = ypath(q, k->path + strlen("vmOpts.qemu."))) && n->kind != Y_NULL)
			putnode(l, k, l->c, INSTANCE, n);
}

/* A text, "" for NULL, as the value of a key. */
static void
putstr(struct ydoc *d, struct ynode *map, const char *key, const char *s)
{
	(void)yput(d, map, key, ynewstr(d, s ? s : ""));
}

static struct ynode *
parammap(struct layers *l)
{
	bool onway;
	const struct ynode *p = l->val[keyrow(confkeys, "param", &onway) - confkeys][INSTANCE];
	struct ynode *map = ynewmap(&l->vars);

	for (p = p && p->kind == Y_MAP ? p->first : NULL; p; p = p->next)
		putstr(&l->vars, map, ykey(p), ystr(p));
	return map;
}

/* Expand the guest's variables in *s (spec/config.md 10.1). */
static void
xguest(struct layers *l, const char **s, const char *what)
{
	struct conf *c = l->c;
	struct ynode *m;

	if (!*s || !strstr(*s, "{{"))
		return;
	if (!(m = l->guest)) {
		m = l->guest = ynewmap(&l->vars);
		putstr(&l->vars, m, "Name", c->name);
		putstr(&l->vars, m, "Hostname", guesthostname(c->name));
		(void)yput(&l->vars, m, "UID", ynewint(&l->vars, c->uid));
		putstr(&l->vars, m, "User", c->user);
		putstr(&l->vars, m, "Home", c->home);
		(void)yput(&l->vars, m, "Param", parammap(l));
	}
	*s = expandmap(&perm, *s, m, what);
}

/* The same with the host's. */
static void
xhost(struct layers *l, const char **s, const char *what)
{
	struct ynode *m;

	if (!*s || !strstr(*s, "{{"))
		return;
	if (!(m = l->host)) {
		m = l->host = ynewmap(&l->vars);
		putstr(&l->vars, m, "Dir", l->c->dir);
		putstr(&l->vars, m, "Name", l->c->name);
		putstr(&l->vars, m, "Instance", l->c->name);
		putstr(&l->vars, m, "UID", keep("%lld", (long long)host.uid));
		putstr(&l->vars, m, "User", host.login);
		putstr(&l->vars, m, "Home", host.home);
		putstr(&l->vars, m, "GlobalTempDir", "/tmp");
		putstr(&l->vars, m, "TempDir", envor("TMPDIR", "/tmp"));
		putstr(&l->vars, m, "LimaHome", host.limahome);
		(void)yput(&l->vars, m, "Param", parammap(l));
	}
	*s = expandmap(&perm, *s, m, what);
}

/* user.home may hold variables; there .Home is its own raw text. */
static void
fillhomevars(struct layers *l)
{
	xguest(l, &l->c->home, "`user.home` value");
	l->guest = NULL;
}

/* What of path lies below dir: "" when it is dir, NULL when it does not. */
static const char *
below(const char *path, const char *dir)
{
	size_t n = strcmp(dir, "/") == 0 ? 0 : strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '/' || !path[n]) ? path + n : NULL;
}

/* A path without . and .. and double slashes, as text: links are not asked. */
static const char *
lexclean(const char *path)
{
	char *s = yalloc(&perm, strlen(path) + 3), *o = s, *base;
	size_t n;

	if (*path == '/')
		*o++ = '/';
	for (base = o; *path; path += n) {
		path += strspn(path, "/");
		n = strcspn(path, "/");
		if (!n || (n == 1 && *path == '.'))
			continue;
		if (n == 2 && path[0] == '.' && path[1] == '.' && (*s == '/' || (o > base && strcmp(o - 3 > base ? o - 3 : base, "../") != 0))) {
			while (o > base && (--o == base || o[-1] != '/'))
				;
			continue;
		}
		memcpy(o, path, n);
		o += n;
		*o++ = '/';
		*o = '\0';
	}
	if (o > base)
		o--;            /* the last slash */
	*o = '\0';
	return *s ? s : ".";
}

/* ~ and ~/x with the home in place; other texts as they are. */
static const char *
tilde(const char *path)
{
	return *path == '~' && (!path[1] || path[1] == '/') && host.home ? keep("%s%s", host.home, path + 1) : path;
}

/* Give the members of dst what is set in src; rows from `from` on. */
static void
update(const struct key *rows, const char *from, void *dst, const void *src)
{
	size_t n;
	bool on = false;

	for (; rows->path; rows++) {
		if (!(on |= strcmp(rows->path, from) == 0) || isunset(rows, src))
			continue;
		n = rows->type == KINT || rows->type == KSIZE ? sizeof(long long) : rows->type == KBOOL ? sizeof(int) : sizeof(char *);
		memcpy((char *)dst + rows->off, (const char *)src + rows->off, n);
		if (rows->type == KSIZE)
			*(const char **)((char *)dst + rows->text) = *(const char *const *)((const char *)src + rows->text);
	}
}

/* Mounts come as default, instance, override; one with the mount point of an
 * earlier one changes that one's options and is none of its own. */
static void
fillmounts(struct layers *l)
{
	struct conf *c = l->c;
	struct mount *m = c->mounts.v;
	size_t i, k, n = 0;

	for (i = 0; i < c->mounts.n; i++) {
		xhost(l, &m[i].location, "mount location");
		m[i].location = tilde(lexclean(m[i].location ? m[i].location : ""));
		xguest(l, &m[i].mountpoint, "mount point");
		if (!m[i].mountpoint || !*m[i].mountpoint)
			m[i].mountpoint = m[i].location;
		for (k = 0; k < n && strcmp(m[k].mountpoint, m[i].mountpoint) != 0; k++)
			;
		if (k < n)
			update(mountkeys, "writable", &m[k], &m[i]);
		else
			m[n++] = m[i];
	}
	c->mounts.n = n;
	for (i = 0; i < n; i++) {
		filldefs(c, mountkeys, &m[i]);
		if (!m[i].p9cache || !*m[i].p9cache)
			m[i].p9cache = m[i].writable ? "mmap" : "fscache";
		if (m[i].queuesize == UNSET && c->mounttype && strcmp(c->mounttype, "virtiofs") == 0)
			m[i].queuesize = 1024;
	}
}

/* Where no file says a word of mounts: the home to read, /tmp/lima to write. */
static void
automounts(struct conf *c)
{
	struct mount *m = yalloc(&perm, 2 * sizeof *m);
	size_t i;

	for (i = 0; i < 2; i++)
		unsetall(mountkeys, &m[i]);
	m[0].location = host.home;
	m[1].location = "/tmp/lima";
	m[1].writable = 1;
	c->mounts = (struct list){ host.home ? m : m + 1, host.home ? 2 : 1 };
}

static void
fillprovisions(struct layers *l)
{
	struct provision *p = l->c->provisions.v, *end = p + l->c->provisions.n;

	for (; p < end; p++) {
		bool data, yq;

		filldefs(l->c, provisionkeys, p);
		data = strcmp(p->mode, "data") == 0;
		yq = strcmp(p->mode, "yq") == 0;
		if (strcmp(p->mode, "dependency") == 0 && p->skipdeps < 0)
			p->skipdeps = 0;
		if (data && p->overwrite < 0)
			p->overwrite = 1;
		if ((data || yq) && (!p->owner || !*p->owner))
			p->owner = "root:root";
		if ((data || yq) && (!p->permissions || !*p->permissions))
			p->permissions = "644";
		if (yq && (!p->format || !*p->format))
			p->format = "auto";
		xguest(l, &p->script, "provisioning script");
		xguest(l, &p->content, "data content");
		xguest(l, &p->expression, "expression");
		xguest(l, &p->owner, "owner");
		xguest(l, &p->path, "path");
	}
}

static void
fillprobes(struct layers *l)
{
	struct probe *p = l->c->probes.v;
	size_t i, n = l->c->probes.n;

	for (i = 0; i < n; i++) {
		filldefs(l->c, probekeys, &p[i]);
		if (!p[i].description || !*p[i].description)
			p[i].description = keep("user probe %zu/%zu", i + 1, n);
		xguest(l, &p[i].script, "probing script");
	}
}

static void
fillforwards(struct layers *l)
{
	struct forward *f = l->c->forwards.v, *end = f + l->c->forwards.n;

	for (; f < end; f++) {
		if (!f->guestip)
			f->guestip = f->guestzero > 0 ? "0.0.0.0" : "127.0.0.1";
		if (f->guestzero < 0)
			f->guestzero = strcmp(f->guestip, "0.0.0.0") == 0;
		filldefs(l->c, forwardkeys, f);
		if (!f->guestports.from && !f->guestports.to) {
			f->guestports = (struct range){ f->guestport, f->guestport };
			if (!f->guestport)
				f->guestports = (struct range){ 1, 65535 };
		}
		xguest(l, &f->guestsocket, "guestSocket");
		xhost(l, &f->hostsocket, "hostSocket");
		if (f->hostsocket && *f->hostsocket && *f->hostsocket != '/')
			f->hostsocket = keep("%s/sock/%s", l->c->dir, f->hostsocket);
		if (!f->hostports.from && !f->hostports.to && !(f->hostsocket && *f->hostsocket)) {
			f->hostports = (struct range){ f->hostport, f->hostport };
			if (!f->hostport)
				f->hostports = f->guestports;
		}
	}
}

static void
fillnetworks(struct layers *l)
{
	struct conf *c = l->c;
	struct network *n = c->networks.v;
	size_t i, k, out = 0;

	for (i = 0; i < c->networks.n; i++) {
		for (k = 0; k < out; k++)
			if (n[i].interface && *n[i].interface && n[k].interface && strcmp(n[k].interface, n[i].interface) == 0)
				break;
		if (k == out) {
			n[out++] = n[i];
			continue;
		}
		if (n[i].socket && *n[i].socket)
			n[k].lima = NULL;
		else if (n[i].lima && *n[i].lima)
			n[k].socket = NULL;
		update(networkkeys, "lima", &n[k], &n[i]);
	}
	c->networks.n = out;
	for (i = 0; i < out; i++) {
		filldefs(c, networkkeys, &n[i]);
		if (!n[i].mac || !*n[i].mac)
			n[i].mac = macaddress(keep("%s/lima.yaml#%zu", c->dir, i));
		if (!n[i].interface || !*n[i].interface)
			n[i].interface = keep("lima%zu", i);
	}
}

/* What the architectures of images, archives and firmware default to. */
static void
fillimages(struct conf *c, struct list *list)
{
	struct image *im = list->v, *end = im + list->n;

	for (; im < end; im++) {
		if (!im->arch || !*im->arch || strcmp(im->arch, "default") == 0)
			im->arch = c->arch;
		if (im->kernel && (!im->kernelarch || !*im->kernelarch))
			im->kernelarch = im->arch;
		if (im->initrd && (!im->initrdarch || !*im->initrdarch))
			im->initrdarch = im->arch;
	}
}

static void
fillarchives(struct conf *c)
{
	struct image *im;
	size_t i;

	if (!c->archives.n) {
		c->archives.v = im = yalloc(&perm, LEN(enginearchives) * sizeof *im);
		for (i = 0; i < LEN(enginearchives); i++)
			im[c->archives.n++] = (struct image){ .location = enginearchives[i].location,
			    .arch = enginearchives[i].arch, .digest = enginearchives[i].digest };
	}
	fillimages(c, &c->archives);
}

static void
fillcopies(struct layers *l)
{
	struct cthost *t = l->c->copies.v, *end = t + l->c->copies.n;

	for (; t < end; t++) {
		filldefs(l->c, copykeys, t);
		xguest(l, &t->guest, "guest");
		xhost(l, &t->host, "host");
	}
}

/* Warn, once and only when an instance is made, of what could not be mirrored. */
static void
warnuser(const struct conf *c)
{
	if (host.uid == 0) {
		info("Running as root: the guest's user is %s with uid %lld", bq(c->user), c->uid);
		return;
	}
	if (strcmp(c->user, fallbackuser) == 0 && host.login && strcmp(host.login, fallbackuser) != 0) {
		if (validuser(host.login))
			warn("local username %s is reserved; using `%s` instead", bq(host.login), fallbackuser);
		else
			warn("local username %s is not a valid Linux username (must match `^[a-z_][a-z0-9_-]*$`); using `%s` instead",
			    bq(host.login), fallbackuser);
	}
	if (badguestuid(host.uid) && c->uid == fallbackuid)
		warn("local uid %lld cannot be a user's in the guest; using %lld instead", (long long)host.uid, fallbackuid);
}

/* What an entry of a list is called when plain mode leaves it out; "" goes
 * without a word, NULL stays. */
static const char *
mountoff(const void *v, size_t i)
{
	const struct mount *m = v;

	(void)i;
	return m->isstatic > 0 ? NULL : keep("the mount %s", m->location);
}

static const char *
forwardoff(const void *v, size_t i)
{
	const struct forward *f = v;

	(void)i;
	if (f->isstatic > 0)
		return NULL;
	if (f->guestsocket && *f->guestsocket)
		return keep("the forward of %s", f->guestsocket);
	return f->ignore ? "" : keep("the forward of port %lld", f->guestports.from);
}

static const char *
provisionoff(const void *v, size_t i)
{
	const struct provision *p = v;

	return strcmp(p->mode, "dependency") == 0 || strcmp(p->mode, "yq") == 0 ? keep("provision[%zu] (%s)", i, p->mode) : NULL;
}

static void
leaveout(struct buf *out, const char *what)
{
	bufputs(out, out->len && *what ? ", " : "");
	bufputs(out, what);
}

/* Leave the entries that stay, of `size` bytes each, and collect the names of
 * the others. */
static void
thin(struct list *list, size_t size, const char *(*off)(const void *, size_t), struct buf *out)
{
	char *v = list->v;
	const char *what;
	size_t i, n = 0;

	for (i = 0; i < list->n; i++)
		if ((what = off(v + i * size, i)))
			leaveout(out, what);
		else
			memmove(v + n++ * size, v + i * size, size);
	list->n = n;
}

/* Plain mode: a user and ssh, and what is explicitly wanted back.  The one place
 * that asks; what was automatic goes without a word. */
static void
plaingate(struct conf *c, bool automatic, bool warnings)
{
	const struct forward *f = c->forwards.v;
	struct buf out = { 0 };
	size_t i;

	if (!c->plain)
		return;
	thin(&c->mounts, sizeof(struct mount), mountoff, &out);
	if (automatic)
		out.len = 0;
	thin(&c->forwards, sizeof(struct forward), forwardoff, &out);
	thin(&c->provisions, sizeof(struct provision), provisionoff, &out);
	if (c->env.n)
		leaveout(&out, "env");
	if (c->hosts.n)
		leaveout(&out, "hostResolver.hosts");
	if (warnings && out.len)
		warn("Running in plain mode without %s (`static: true` keeps a mount or a forward)", out.s);
	buffree(&out);
	if (warnings && c->forwardagent > 0)
		warn("Running in plain mode. Ignoring ssh.forwardAgent");
	for (i = 0; warnings && i < c->forwards.n; i++)
		if (f[i].guestports.to - f[i].guestports.from >= 10 && f[i].guestports.to - f[i].guestports.from < PORTMAX)
			warn("[plain mode] portForwards[%zu] covers a range of more than 10 ports (guest: %lld-%lld, host: %lld-%lld). "
			    "All ports will be forwarded unconditionally, which may be inefficient.",
			    i, f[i].guestports.from, f[i].guestports.to, f[i].hostports.from, f[i].hostports.to);
	c->autoforward = false;
	c->containerdsystem = c->containerduser = false;
	c->timezone = "";
	c->forwardagent = false;
	c->agent = false;
	c->inotify = c->proxyenv = false;
	c->env.n = c->hosts.n = 0;
	c->stock = true;
}

/* Read default.yaml or override.yaml, once; a missing file is an empty one. */
static void
readshared(int i, const char *kind)
{
	struct buf b = { 0 };
	const char *file = keep("%s/_config/%s.yaml", host.limahome, kind);
	struct ydoc *d = &shared.doc[i];

	shared.where[i] = keep("%s file %s", kind, bq(file));
	if (readfile(file, &b, templatemax) < 0 && errno != ENOENT)
		shared.err[i] = keep("read %s: %s", file, errtext(errno));
	else if (yparse(d, b.s ? b.s : "", b.len) < 0)
		shared.err[i] = keep("failed to unmarshal YAML (%s): [%d:%d] %s", shared.where[i], d->eline, d->ecol, d->err);
	buffree(&b);
}

/* By whom the instance was made.  One of limactl keeps limactl's rules; no
 * version beside what an instance leaves behind is older than everything. */
static void
madeby(struct conf *c)
{
	static const char *const signs[] = { "ha.stdout.log", "ha.stderr.log", "vz-identifier", "image", "disk", "basedisk", "diffdisk", "cidata.iso" };
	bool tail;
	size_t i;

	c->made = version3(FAKEVERSION, &tail);
	if ((c->version = readline1(keep("%s/lima-version", c->dir)))) {
		c->foreign = !strstr(c->version, "-c");
		if (c->foreign)
			c->made = version3(c->version, &tail);
		return;
	}
	for (i = 0; i < LEN(signs) && !c->foreign; i++)
		if (access(keep("%s/%s", c->dir, signs[i]), F_OK) == 0) {
			c->foreign = true;
			c->made = 0;
		}
}

/* Values that mean the default: 0 CPUs, and the word `default`; and an override
 * out of the environment. */
static void
emptydefaults(struct conf *c)
{
	static bool told;
	const char *s = envor("LIMA_SSH_OVER_VSOCK", NULL);

	if (s) {
		c->overvsock = strchr("1tT", *s) != NULL;
		if (!told)
			warn("$LIMA_SSH_OVER_VSOCK is deprecated; set `ssh.overVsock` in the configuration");
		told = true;
	}
	if (c->cpus == 0)
		c->cpus = UNSET;
	if (c->os && strcmp(c->os, "default") == 0)
		c->os = NULL;
	if (c->arch && strcmp(c->arch, "default") == 0)
		c->arch = NULL;
}

/* Put v below map at a dotted path, making maps on the way. */
static void
treeput(struct ydoc *d, struct ynode *map, const char *path, struct ynode *v)
{
	const char *dot;
	char *name;
	struct ynode *m;

	for (; (dot = strchr(path, '.')); path = dot + 1, map = m) {
		name = ystrndup(&d->a, path, (size_t)(dot - path));
		if (!(m = yget(map, name)))
			m = yput(d, map, name, ynewmap(d));
	}
	(void)yput(d, map, path, v);
}

static void conftree(struct ydoc *, struct ynode *, const struct key *, const void *);

/* The value of one member as a node, NULL when it has none. */
static struct ynode *
confvalue(struct ydoc *d, const struct key *k, const void *base)
{
	const void *at = (const char *)base + k->off;
	const char *s = k->type == KSTR || k->type == KIP || k->type == KFILE ? *(const char *const *)at : NULL;
	const struct list *l = at;
	const struct strs *t = at;
	const struct pairs *p = at;
	const struct range *r = at;
	struct ynode *v = NULL, *item;
	size_t i;

	switch (k->type) {
	case KSTR:
	case KIP:
	case KFILE:
		return s && (*s || !k->brief) ? ynewstr(d, s) : NULL;
	case KINT:
		return *(const long long *)at != UNSET && (*(const long long *)at || !k->brief) ? ynewint(d, *(const long long *)at) : NULL;
	case KBOOL:
		return *(const int *)at > 0 || (*(const int *)at == 0 && !k->brief) ? ynewbool(d, *(const int *)at) : NULL;
	case KSIZE:
		s = *(const char *const *)((const char *)base + k->text);
		return s ? ynewstr(d, s) : NULL;
	case KRANGE:
		v = ynewseq(d);
		yappend(d, v, ynewint(d, r->from));
		yappend(d, v, ynewint(d, r->to));
		return v;
	case KSTRS:
		v = t->n || !k->brief ? ynewseq(d) : NULL;
		for (i = 0; v && i < t->n; i++)
			yappend(d, v, ynewstr(d, t->v[i]));
		return v;
	case KPAIRS:
		v = p->n || !k->brief ? ynewmap(d) : NULL;
		for (i = 0; v && i < p->n; i++)
			(void)yput(d, v, p->v[i].key, ynewstr(d, p->v[i].val));
		return v;
	case KRAW:
		item = *(struct ynode *const *)at;
		return item ? ycopy(d, item) : NULL;
	case KLIST:
		v = l->n || !k->brief ? ynewseq(d) : NULL;
		for (i = 0; v && i < l->n; i++) {
			item = ynewmap(d);
			conftree(d, item, k->items, (const char *)l->v + i * k->size);
			yappend(d, v, item);
		}
		return v;
	}
	return NULL;
}

/* The members of rows, put into map in table order; what is unset is left out. */
static void
conftree(struct ydoc *d, struct ynode *map, const struct key *rows, const void *base)
{
	struct ynode *v;

	for (; rows->path; rows++)
		if (!rows->mute && (v = confvalue(d, rows, base)))
			treeput(d, map, rows->path, v);
}

/* ---- 10. Validation ----------------------------------------------------- */

/* What a configuration must fulfil (spec/config.md 12.1): a table of keys in the
 * order of the messages, with a check of the value or of each item of the list.
 * All complaints are collected in errs.  Loading ends with it, so it stands here. */

/* One complaint about an identifier, or NULL. */
static const char *
badident(const char *s)
{
	const char *p = s;
	bool bad = !isalnum((unsigned char)*s);

	if (!*s)
		return "identifier must not be empty";
	if (strlen(s) > 76)
		return keep("identifier %s greater than maximum length (76 characters)", bq(s));
	for (; *p; p++)
		bad |= !isalnum((unsigned char)*p) &&
		    (!strchr("._-", *p) || !isalnum((unsigned char)p[1]));
	return bad ? keep("identifier %s must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$", bq(s)) : NULL;
}

/* algo:hex -> program that computes it; NULL and a reason when malformed. */
static const char *
digestprog(const char *digest, const char **why)
{
	static const struct { const char *algo, *prog; size_t len; } t[] = {
		{ "sha256:", "sha256sum", 64 }, { "sha384:", "sha384sum", 96 }, { "sha512:", "sha512sum", 128 },
	};
	const char *hex = strchr(digest, ':');
	size_t i;

	*why = "invalid checksum digest format";
	if (!hex || hex[1 + strspn(hex + 1, "0123456789abcdef")] != '\0')
		return NULL;
	for (i = 0; i < LEN(t); i++)
		if (startswith(digest, t[i].algo)) {
			*why = "invalid checksum digest length";
			return strlen(hex + 1) == t[i].len ? t[i].prog : NULL;
		}
	*why = "unsupported digest algorithm";
	return NULL;
}

static const char *
checkos(const struct conf *c, const char *v)
{
	(void)c;
	return strcmp(v, "Linux") == 0 ? NULL :
	    keep("field `os` must be one of [`Linux` `Darwin` `FreeBSD` `Windows`]; got %s (only Linux guests are supported here)", bq(v));
}

static const char *
checkarch(const struct conf *c, const char *v)
{
	(void)c;
	return archbyname(v) ? NULL :
	    keep("field `arch` must be one of [x86_64 aarch64 armv7l ppc64le riscv64 s390x]; got %s", bq(v));
}

static const char *
checkvmtype(const struct conf *c, const char *v)
{
	(void)c;
	/* files for other systems are well formed; such a VM is refused by checkdriver */
	return strcmp(v, "qemu") == 0 || strcmp(v, "vz") == 0 || strcmp(v, "wsl2") == 0 ? NULL :
	    keep("vmType %s is not a registered driver", bq(v));
}

static const char *
checkcpus(const struct conf *c, const char *v)
{
	(void)v;
	return c->cpus >= 0 ? NULL : "field `cpus` must be >= 0";
}

/* Values that become a line of lima.env, and of passwd(5) in the guest. */
static const char *
checkline(const struct conf *c, const char *v)
{
	(void)c;
	for (; v && *v; v++)
		if (iscntrl((unsigned char)*v))
			return "fields `user.home`, `timezone` and `guestInstallPrefix` must not contain control characters";
	return NULL;
}

static const char *
checkhome(const struct conf *c, const char *v)
{
	if (*v != '/' || strchr(v, ':'))
		return keep("field `user.home` must be an absolute path without `:`, got %s", bq(v));
	return checkline(c, v);
}

static const char *
checkshell(const struct conf *c, const char *v)
{
	return *v == '/' && !strchr(v, ':') && !checkline(c, v) ? NULL : keep("field `user.shell` must be an absolute path, got %s", bq(v));
}

static const char *
checkuid(const struct conf *c, const char *v)
{
	(void)v;
	if (c->uid == 0)
		return "field `user.uid` must not be 0";
	return c->uid > 0 && c->uid < 4294967295LL ? NULL : keep("field `user.uid` must be between 1 and 4294967294, got `%lld`", c->uid);
}

static const char *
checkusername(const struct conf *c, const char *v)
{
	(void)c;
	if (strcmp(v, "root") == 0)
		return "field `user.name` must not be `root`";
	/* it goes into passwd lines, sudoers and paths of the guest */
	return *v && !strchr("-+~", *v) && !strpbrk(v, ":/\\,%\"'#!()= ") && !checkline(c, v) ? NULL :
	    keep("field `user.name` must not be empty, start with - + ~ or contain blanks or any of :/\\,%%\"'#!()=, got %s", bq(v));
}

static const char *
checksudo(const struct conf *c, const char *v)
{
	(void)v;
	return c->sudo || c->plain ? NULL : "`user.passwordlessSudo: false` requires `plain: true`";
}

/* An image, an archive, a kernel: P is where it stands. */
static void
checkfile(struct conf *c, const char *P, const char *location, const char *arch, const char *digest)
{
	const char *why;

	location = location ? location : "";
	if (!*location || (*location == '~' && location[1] && location[1] != '/'))
		conferr(c, "field `%s.location` refers to an invalid local file path: %s: %s", P, bq(location),
		    *location ? keep("unexpandable path %s", bq(location)) : "empty path");
	if (arch && (why = checkarch(c, arch)))
		conferr(c, "%s", why);
	if (digest && *digest && !digestprog(digest, &why))
		conferr(c, "field `%s.digest` is invalid: %s: %s", P, digest, why);
}

static bool
eachimage(struct conf *c, const void *item, const char *at)
{
	const struct image *im = item;
	const struct { const char *name, *location, *arch, *digest; } t[] = {
		{ "kernel", im->kernel, im->kernelarch, im->kerneldigest },
		{ "initrd", im->initrd, im->initrdarch, im->initrddigest },
	};
	size_t i;

	checkfile(c, at, im->location, im->arch, im->digest);
	for (i = 0; i < LEN(t); i++) {
		if (!t[i].location)
			continue;
		checkfile(c, keep("%s.%s", at, t[i].name), t[i].location, t[i].arch, t[i].digest);
		if (strcmp(t[i].arch, im->arch) != 0)
			conferr(c, "%s.%s has unexpected architecture %s, must be %s", at, t[i].name, bq(t[i].arch), bq(im->arch));
	}
	return true;
}

static bool
eachfirmware(struct conf *c, const void *item, const char *at)
{
	const struct image *im = item;

	checkfile(c, at, im->location, im->arch, im->digest);
	return true;
}

/* The archives are asked for only when an engine is wanted. */
static bool
eacharchive(struct conf *c, const void *item, const char *at)
{
	return (c->containerdsystem <= 0 && c->containerduser <= 0) || eachfirmware(c, item, at);
}

static bool
eachdisk(struct conf *c, const void *item, const char *at)
{
	const struct datadisk *d = item;
	const char *e = badident(d->name ? d->name : "");

	if (e)
		conferr(c, "field `%s.name is invalid`: %s", at, e);
	return true;
}

/* How the mounts of a configuration are carried: `mountType`. */
enum mountkind { MTSSHFS, MT9P, MTVIRTIOFS };
static const char *const mountkinds[] = { "reverse-sshfs", "9p", "virtiofs" };
static enum mountkind
mountkind(const struct conf *c)
{
	enum mountkind k = MTVIRTIOFS;

	while (k && !(c->mounttype && strcmp(c->mounttype, mountkinds[k]) == 0))
		k--;
	return k;
}

/* Is it served by OpenSSH's sftp-server, which somebody asked for? */
static bool
byopenssh(const struct mount *m)
{
	return strcmp(m->sftpdriver, "openssh-sftp-server") == 0;
}

static bool
eachmount(struct conf *c, const void *item, const char *at)
{
	static const char *const reserved[] = { "/", "/bin", "/dev", "/etc", "/home", "/opt", "/sbin", "/tmp", "/usr", "/var" };
	const struct mount *m = item;
	const char *p;
	char why[128];
	struct stat st;
	long long size;

	for (p = keep("%s%s", m->location, m->mountpoint); (unsigned char)*p >= ' ' && *p != 0x7f; p++)
		;
	if (*p)
		conferr(c, "field `%s` must not contain line breaks or other control characters", at);
	if (*m->location == '~')
		conferr(c, "field `%s.location` refers to an unexpandable path: %s: only `~` and `~/` are known", at, bq(m->location));
	else if (*m->location != '/')
		conferr(c, "field `%s.location` must be an absolute path, got %s", at, bq(m->location));
	else if (stat(m->location, &st) < 0) {
		if (errno != ENOENT)    /* start makes it */
			conferr(c, "field `%s.location` refers to an inaccessible path: %s: %s", at, bq(m->location), errtext(errno));
	} else if (!S_ISDIR(st.st_mode))
		conferr(c, "field `%s.location` refers to a non-directory path: %s", at, bq(m->location));
	if (oneof(m->mountpoint, reserved, LEN(reserved)))
		conferr(c, "field `%s.mountPoint` must not be a system path such as /etc or /usr", at);
	else if (c->home && strcmp(m->mountpoint, c->home) == 0)
		conferr(c, "field `%s.mountPoint` is the reserved internal home directory %s", at, bq(c->home));
	else if (*m->mountpoint == '~')
		conferr(c, "field `%s.mountPoint` must not start with `~`", at);
	else if (*m->mountpoint != '/')
		conferr(c, "field %s must be absolute, got %s", at, bq(m->mountpoint));
	if (*m->sftpdriver && strcmp(m->sftpdriver, "builtin") != 0 && !byopenssh(m))
		conferr(c, "field `%s.sshfs.sftpDriver` must be `builtin` or `openssh-sftp-server`, got %s", at, bq(m->sftpdriver));
	if (parsesize(m->p9msizetext, &size, why) < 0)
		conferr(c, "field `msize` has an invalid value: %s", why);
	return true;
}

/* What is wrong with a port number, as the end of a sentence; NULL: nothing. */
static const char *
badport(long long n)
{
	return n < 0 ? "be > 0" : n == 0 ? "be set" : n == 22 ? "not be 22" : n > 65535 ? "be < 65536" : NULL;
}

static const char *
checkport(const struct conf *c, const char *v)
{
	const char *e = c->sshport ? badport(c->sshport) : NULL;

	(void)v;
	return e ? keep("field `ssh.localPort` must %s", e) : NULL;
}

static const char *
checkmounttype(const struct conf *c, const char *v)
{
	struct buf b = { 0 };
	const char *e = NULL;
	size_t i;

	if (!v)
		return NULL;
	if (strcmp(v, "reverse-sshfs") != 0 && strcmp(v, "9p") != 0 && strcmp(v, "virtiofs") != 0 && strcmp(v, "wsl2") != 0)
		return keep("field `mountType` must be `reverse-sshfs` or `9p` or `virtiofs`, or `wsl2`, got %s", bq(v));
	for (i = 0; i < c->unsupported.n; i++) {
		bufprintf(&b, " %s", c->unsupported.v[i]);
		if (strcmp(c->unsupported.v[i], v) == 0)
			e = v;
	}
	if (e)
		e = keep("field `mountType` must not be one of [%s] (`mountTypesUnsupported`), got %s", b.s + 1, bq(v));
	buffree(&b);
	return e;
}

/* An octal number, as the guest's chmod takes it. */
static bool
octal(const char *s)
{
	return *s && !s[strspn(s, "01234567")] && strlen(s) < 8;
}

/* Members that only some modes have. */
static bool
eachprovision(struct conf *c, const void *item, const char *at)
{
	static const char *const modes[] = { "system", "user", "boot", "data", "dependency", "ansible", "yq" };
	const struct provision *p = item;
	const struct { const char *key; bool set; const char *modes; } only[] = {
		{ "content", p->content != NULL, "`data`" }, { "overwrite", p->overwrite >= 0, "`data`" },
		{ "owner", p->owner != NULL, "`data`" }, { "path", p->path != NULL, "`data`, or `yq`" },
		{ "permissions", p->permissions != NULL, "`data`, or `yq`" }, { "format", p->format != NULL, "`yq`" },
	};
	bool ansible = strcmp(p->mode, "ansible") == 0;
	struct stat st;
	size_t i;

	if (p->file && *p->file)
		conferr(c, "field `%s.file.url` must be empty during validation (script should already be embedded)", at);
	if (p->filedigest)
		conferr(c, "field `%s.file.digest` support is not yet implemented", at);
	if (!oneof(p->mode, modes, LEN(modes)))
		conferr(c, "field `%s.mode` must one of `system`, `user`, `boot`, `data`, `dependency`, `ansible`, or `yq`", at);
	if (p->skipdeps >= 0 && strcmp(p->mode, "dependency") != 0)
		conferr(c, "field `%s.mode` cannot set skipDefaultDependencyResolution, only valid on scripts of type `dependency`", at);
	if (strcmp(p->mode, "data") == 0 || strcmp(p->mode, "yq") == 0) {
		if (!p->path || !*p->path) {
			conferr(c, "field `%s.path` must not be empty when mode is `%s`", at, p->mode);
			return false;
		}
		if (*p->path != '/')
			conferr(c, "field `%s.path` must be an absolute path", at);
		if (*p->mode == 'y' && !p->expression)
			conferr(c, "field `%s.expression` must not be empty when mode is `yq`", at);
		if (!octal(p->permissions))
			conferr(c, "field `%s.permissions` must be an octal number: strconv.ParseInt: parsing \"%s\": invalid syntax", at, p->permissions);
		if (checkline(c, p->path) || checkline(c, p->owner))
			conferr(c, "fields `%s.path` and `owner` must not contain control characters", at);
	} else {
		if (!*p->script && !ansible)
			conferr(c, "field `%s.script` must not be empty", at);
		for (i = 0; i < LEN(only); i++)
			if (only[i].set)
				conferr(c, "field `%s.%s` can only be set when mode is %s", at, only[i].key, only[i].modes);
	}
	if (p->playbook && *p->playbook) {
		if (!ansible)
			conferr(c, "field `%s.playbook can only be set when mode is `ansible`", at);
		if (*p->script)
			conferr(c, "field `%s.script must be empty if playbook is set", at);
		if (stat(p->playbook, &st) < 0)
			conferr(c, "field `%s.playbook` refers to an inaccessible path: %s: stat %s: %s", at, bq(p->playbook), p->playbook, errtext(errno));
	}
	return true;
}

static bool
eachprobe(struct conf *c, const void *item, const char *at)
{
	const struct probe *p = item;

	at = keep("probe%s", at + strlen("probes"));
	if (p->file && *p->file)
		conferr(c, "field `%s.file.url` must be empty during validation (script should already be embedded)", at);
	if (!startswith(p->script, "#!"))
		conferr(c, "field `%s.script` must start with a '#!' line", at);
	if (strcmp(p->mode, "readiness") != 0)
		conferr(c, "field `%s.mode` can only be `readiness`", at);
	return true;
}

static bool
eachforward(struct conf *c, const void *item, const char *at)
{
	const struct forward *f = item;
	const struct { const char *name, *socket; long long port; struct range r; } e[2] = {
		{ "guest", f->guestsocket ? f->guestsocket : "", f->guestport, f->guestports },
		{ "host", f->hostsocket ? f->hostsocket : "", f->hostport, f->hostports },
	};
	const char *why;
	size_t i, k;

	if (f->guestzero > 0 && strcmp(f->guestip, "0.0.0.0") != 0)
		conferr(c, "field `%s.guestIPMustBeZero` can only be true when field `%s.guestIP` is 0.0.0.0", at, at);
	for (i = 0; i < 2; i++) {
		if (!e[i].port)
			continue;
		if (*e[i].socket)
			conferr(c, "field `%s.%sPort` must be 0 when field `%s.%sSocket` is set", at, e[i].name, at, e[i].name);
		if (e[i].port != e[i].r.from)
			conferr(c, "field `%s.%sPort` must match field `%s.%sPortRange[0]`", at, e[i].name, at, e[i].name);
		if ((why = badport(e[i].port)))
			conferr(c, "field `%s.%sPort` must %s", at, e[i].name, why);
	}
	for (i = 0; i < 2; i++)
		for (k = 0; k < 2 && !(i && *e[i].socket); k++)
			if ((why = badport(k ? e[i].r.to : e[i].r.from)))
				conferr(c, "field `%s.%sPortRange[%zu]` must %s", at, e[i].name, k, why);
	for (i = 0; i < 2; i++)
		if (e[i].r.to < e[i].r.from)
			conferr(c, "field `%s.%sPortRange[1]` must be greater than or equal to field `%s.%sPortRange[0]`", at, e[i].name, at, e[i].name);
	if (*e[0].socket && *e[0].socket != '/')
		conferr(c, "field `%s.guestSocket` must be an absolute path, but is %s", at, bq(e[0].socket));
	if (*e[0].socket && !*e[1].socket && e[1].r.to > e[1].r.from)
		conferr(c, "field `%s.guestSocket` can only be mapped to a single port or socket. not a range", at);
	if (*e[1].socket && !*e[0].socket && e[0].r.to > e[0].r.from)
		conferr(c, "field `%s.hostSocket` can only be mapped from a single port or socket. not a range", at);
	if (!*e[1].socket && e[0].r.to - e[0].r.from != e[1].r.to - e[1].r.from)
		conferr(c, "field `%s.hostPortRange` must specify the same number of ports as field `%s.guestPortRange`", at, at);
	if (strlen(e[1].socket) >= UNIXPATHMAX)
		conferr(c, "field `%s.hostSocket` must be less than UNIX_PATH_MAX=%d characters, but is %zu", at, UNIXPATHMAX, strlen(e[1].socket));
	if (strcmp(f->proto, "tcp") != 0 && strcmp(f->proto, "udp") != 0 && strcmp(f->proto, "any") != 0)
		conferr(c, "field `%s.proto` must be `tcp`, `udp`, or `any`", at);
	for (i = 0; i < 2 && f->reverse > 0; i++)
		if (!*e[i].socket)
			conferr(c, "field `%s.reverse` must be false", at);
	return true;
}

static bool
eachcopy(struct conf *c, const void *item, const char *at)
{
	const struct cthost *t = item;

	at += strlen("copyToHost");
	if (*t->guest != '/')
		conferr(c, "field `CopyToHost%s.guest` must be an absolute path, but is %s", at, bq(t->guest));
	if (*t->host != '/')
		conferr(c, "field `CopyToHost%s.host` must be an absolute path, but is %s", at, bq(t->host));
	return true;
}

static const char *
checkdns(const struct conf *c, const char *v)
{
	unsigned char ip[16];
	size_t i;

	(void)v;
	for (i = 0; i < c->dns.n; i++)
		if (inet_pton(strchr(c->dns.v[i], ':') ? AF_INET6 : AF_INET, c->dns.v[i], ip) != 1)
			return keep("field `dns[%zu]`: invalid IP address: %s", i, c->dns.v[i]);
	return c->dns.n && c->resolver > 0 ? "field `dns` must be empty when field `HostResolver.Enabled` is true" : NULL;
}

/* Bytes of a hardware address: pairs of hex digits between : or -; -1: none. */
static int
macbytes(const char *s)
{
	int n = 0;

	for (;; s += 3, n++) {
		if (!isxdigit((unsigned char)s[0]) || !isxdigit((unsigned char)s[1]))
			return -1;
		if (!s[2])
			break;
		if (s[2] != ':' && s[2] != '-')
			return -1;
	}
	n++;
	return n == 6 || n == 8 || n == 20 ? n : -1;
}

static const char defnetworks[] =
    "networks:\n"
    "  user-v2:\n    mode: user-v2\n    gateway: 192.168.104.1\n    netmask: 255.255.255.0\n"
    "  shared:\n    mode: shared\n    gateway: 192.168.105.1\n    dhcpEnd: 192.168.105.254\n    netmask: 255.255.255.0\n"
    "  bridged:\n    mode: bridged\n    interface: en0\n"
    "  host:\n    mode: host\n    gateway: 192.168.106.1\n    dhcpEnd: 192.168.106.254\n    netmask: 255.255.255.0\n";

static const char *
networksfile(void)
{
	return keep("%s/_config/networks.yaml", host.limahome);
}

/* The mode of a network of networks.yaml, which need not be there; NULL: there
 * is no such network. */
static const char *
netmode(const char *name)
{
	static struct ydoc d;
	struct buf b = { 0 };
	const struct ynode *n;

	if (!d.root) {
		if (readfile(networksfile(), &b, 1 << 20) < 0 || yparse(&d, b.s, b.len) < 0)
			(void)yparse(&d, defnetworks, sizeof defnetworks - 1);
		buffree(&b);
	}
	n = yget(yget(d.root, "networks"), name);
	if (!n)
		return strcmp(name, "user-v2") == 0 ? name : NULL;
	n = yget(n, "mode");
	return n && n->kind == Y_STR ? n->s : "";
}

static bool
eachnetwork(struct conf *c, const void *item, const char *at)
{
	const struct network *n = item, *o;
	const char *mode;
	const struct { const char *name; bool set; } t[3] = {
		{ "lima", n->lima && *n->lima }, { "socket", n->socket && *n->socket }, { "vzNAT", n->vznat > 0 },
	};
	struct stat st;
	size_t i, k;
	int bytes;

	/* a network that was deleted later leaves its instances listed */
	if (c->strict && t[0].set) {
		if (!(mode = netmode(n->lima))) {
			conferr(c, "network %s is not defined", bq(n->lima));
			return true;
		}
		if (strcmp(mode, "user-v2") != 0)
			conferr(c, "field `%s.lima` is only supported on macOS right now: %s is of mode %s; use `lima: user-v2`",
			    at, bq(n->lima), bq(mode));
	}
	for (i = 0; i < 3; i++)
		for (k = i + 1; k < 3; k++)
			if (t[i].set && t[k].set)
				conferr(c, "field `%s.%s` and field `%s.%s` are mutually exclusive", at, t[i].name, at, t[k].name);
	if (t[1].set && stat(n->socket, &st) == 0 && !S_ISSOCK(st.st_mode))
		conferr(c, "field `%s.socket` %s points to a non-socket file", at, bq(n->socket));
	if (t[2].set)
		conferr(c, "field `%s.vzNAT` is only supported on macOS; use `lima: user-v2`", at);
	else if (!t[0].set && !t[1].set)
		conferr(c, "field `%s.lima` or  field `%s.socket must be set", at, at);
	bytes = macbytes(n->mac);
	if (bytes < 0)
		conferr(c, "field `vmnet.mac` invalid: address %s: invalid MAC address", n->mac);
	else if (bytes != 6)
		conferr(c, "field `%s.macAddress` must be a 48 bit (6 bytes) MAC address; actual length of %s is %d bytes", at, bq(n->mac), bytes);
	if (strlen(n->interface) >= 16)
		conferr(c, "field `%s.interface` must be less than 16 bytes, but is %zu bytes: %s", at, strlen(n->interface), bq(n->interface));
	if (strpbrk(n->interface, " \t\r\n\v\f/"))
		conferr(c, "field `%s.interface` must not contain whitespace or slashes", at);
	if (strcmp(n->interface, "eth0") == 0)
		conferr(c, "field `%s.interface` must not be set to `eth0` because it is reserved for slirp", at);
	for (o = c->networks.v; o < n && strcmp(o->interface, n->interface) != 0; o++)
		;
	if (o < n)
		conferr(c, "field `%s.interface` value %s has already been used by field `networks[%zu].interface`", at, bq(n->interface),
		    (size_t)(o - (const struct network *)c->networks.v));
	return true;
}

static const char *
checkparam(const struct conf *c, const char *v)
{
	struct buf b = { 0 };
	const char *s;
	size_t i;

	(void)v;
	for (i = 0; i < c->param.n; i++) {
		s = c->param.v[i].key;
		if (!isalpha((unsigned char)*s) || s[wordlen(s)])
			bufprintf(&b, "%sparam %s name does not match regex `^[a-zA-Z][a-zA-Z0-9_]*$`", b.len ? "\n" : "", bq(s));
		for (s = c->param.v[i].val; *s && ((unsigned char)*s >= ' ' || *s == '\t') && *s != 0x7f; s++)
			;
		if (*s)
			bufprintf(&b, strchr("\a\b\n\v\f\r", *s) ? "%sparam %s value contains unprintable character '\\%c'" :
			    "%sparam %s value contains unprintable character '\\x%02x'", b.len ? "\n" : "", bq(c->param.v[i].key),
			    strchr("\a\b\n\v\f\r", *s) ? "abtnvfr"[*s - '\a'] : *s);
	}
	s = b.len ? keep("%s", b.s) : NULL;
	buffree(&b);
	return s;
}

static const char *
checkhosts(const struct conf *c, const char *v)
{
	size_t i;

	(void)v;
	for (i = 0; i < c->hosts.n; i++)
		if (checkline(c, c->hosts.v[i].key) || checkline(c, c->hosts.v[i].val))
			return keep("field `hostResolver.hosts` must not contain control characters: %s", bq(c->hosts.v[i].key));
	return NULL;
}

static const char *
checktpm(const struct conf *c, const char *v)
{
	(void)v;
	return c->tpm > 0 && (strcmp(c->arch, "ppc64le") == 0 || strcmp(c->arch, "s390x") == 0) ?
	    keep("field `tpm` is not supported on architecture %s", bq(c->arch)) : NULL;
}

static const char *
checkbase(const struct conf *c, const char *v)
{
	(void)v;
	return c->base && c->base->kind != Y_NULL ? "field `base` must be empty for YAML validation" : NULL;
}

static const char *
checkminversion(const struct conf *c, const char *v)
{
	bool tail;
	long long n;

	(void)c;
	if (!v)
		return NULL;
	if ((n = version3(v, &tail)) < 0)
		return keep("field `minimumLimaVersion` must be a semvar value, got %s: %s is not in dotted-tri format", bq(v), v);
	return n > version3(FAKEVERSION, &tail) ? keep("template requires Lima version %s; this is only `" FAKEVERSION "`", bq(v)) : NULL;
}

static const char *
checkimages(const struct conf *c, const char *v)
{
	(void)v;
	return c->images.n ? NULL : "field `images` must be set";
}

/* Does s use the parameter: {{ ... .Param.NAME ... }}, or the word PARAM_NAME? */
static bool
usesparam(const char *s, const char *name)
{
	size_t n = strlen(name), i;
	const char *p;

	for (p = s; (p = strstr(p, name)); p++) {
		if (wordchar(p[n]))
			continue;
		i = (size_t)(p - s);
		if (i >= 6 && strncmp(p - 6, "PARAM_", 6) == 0 && (i == 6 || !wordchar(p[-7])))
			return true;
		if (i < 7 || strncmp(p - 7, ".Param.", 7) != 0 || strncmp(p + strcspn(p, "}"), "}}", 2) != 0)
			continue;
		for (i -= 7; i > 1 && s[i - 1] != '}'; i--)
			if (s[i - 1] == '{' && s[i - 2] == '{')
				return true;
	}
	return false;
}

/* The same for every text below a node; what grows out of a tree is as deep as it. */
static bool
treeuses(const struct ynode *n, const char *name)
{
	const struct ynode *m;

	if (n->kind == Y_STR)
		return usesparam(n->s, name);
	if (n->kind == Y_SEQ || n->kind == Y_MAP)
		for (m = n->first; m; m = m->next)
			if (treeuses(m, name))
				return true;
	return false;
}

enum { manyentries = 1000 };            /* of a list whose entries are compared with each other */

static void
checkmany(struct layers *l)
{
	static const char *const keys[] = { "additionalDisks", "mounts", "networks", "param", "caCerts.files", "caCerts.certs" };
	const struct ynode *n;
	size_t i;

	for (i = 0; i < LEN(keys) * NLAYER; i++)
		if ((n = ypath(l->root[i % NLAYER], keys[i / NLAYER])) && n->kind >= Y_SEQ && n->n > manyentries)
			conferr(l->c, "failed to unmarshal YAML (%s): [%d:%d] field `%s` has %zu entries, more than %d",
			    l->where[i % NLAYER], n->line, n->col, keys[i / NLAYER], n->n, manyentries);
}

/* Every parameter of the instance must be used, before anything is expanded: a
 * misspelt one would be lost without a word. */
static void
checkused(struct layers *l)
{
	static const char *const users[] = { "provision", "probes", "copyToHost", "portForwards", "mounts" };
	const struct ynode *map = yget(l->root[INSTANCE], "param"), *p, *n;
	size_t i, k;

	for (p = map && map->kind == Y_MAP ? map->first : NULL; p; p = p->next) {
		for (i = k = 0; i < LEN(users) * NLAYER && !k; i++)
			k = (n = yget(l->root[i % NLAYER], users[i / NLAYER])) && treeuses(n, ykey(p));
		if (!k && strcmp(ykey(p), "internal_netplanOptional") != 0)
			conferr(l->c, "field `param` key %s is not used in any provision, probe, copyToHost, or portForward", bq(ykey(p)));
	}
}

/* check: what is wrong with a value, v being its text if it has one; NULL when
 * nothing is.  each: complains of an item, which stands at "mounts[2]"; false
 * ends it all, as in limactl. */
static const struct rule {
	const char *path;
	const char *(*check)(const struct conf *, const char *v);
	bool (*each)(struct conf *, const void *item, const char *at);
} rules[] = {
	{ .path = "vmType",                 .check = checkvmtype },
	{ .path = "base",                   .check = checkbase },
	{ .path = "minimumLimaVersion",     .check = checkminversion },
	{ .path = "os",                     .check = checkos },
	{ .path = "arch",                   .check = checkarch },
	{ .path = "user.shell",             .check = checkshell },
	{ .path = "images",                 .check = checkimages, .each = eachimage },
	{ .path = "cpus",                   .check = checkcpus },
	{ .path = "memory" },
	{ .path = "disk" },
	{ .path = "additionalDisks",        .each = eachdisk },
	{ .path = "mounts",                 .each = eachmount },
	{ .path = "ssh.localPort",          .check = checkport },
	{ .path = "mountType",              .check = checkmounttype },
	{ .path = "firmware.images",        .each = eachfirmware },
	{ .path = "provision",              .each = eachprovision },
	{ .path = "containerd.archives",    .each = eacharchive },
	{ .path = "guestInstallPrefix",     .check = checkline },
	{ .path = "probes",                 .each = eachprobe },
	{ .path = "portForwards",           .each = eachforward },
	{ .path = "copyToHost",             .each = eachcopy },
	{ .path = "dns",                    .check = checkdns },
	{ .path = "networks",               .each = eachnetwork },
	{ .path = "hostResolver.hosts",     .check = checkhosts },
	{ .path = "param",                  .check = checkparam },
	{ .path = "timezone",               .check = checkline },
	{ .path = "user.name",              .check = checkusername },
	{ .path = "user.home",              .check = checkhome },
	{ .path = "user.uid",               .check = checkuid },
	{ .path = "user.passwordlessSudo",  .check = checksudo },
	{ .path = "tpm",                    .check = checktpm },
};

/* What works and deserves a word, or does not do what it seems to. */
static void
warnconf(const struct layers *l)
{
	const struct conf *c = l->c;
	const struct provision *p = c->provisions.v;
	const struct ynode *n;
	const struct forward *f = c->forwards.v;
	const struct mount *m = c->mounts.v;
	struct range g;
	size_t i;

	if (c->memory < 64 << 20)
		warn("field `memory` is %s: no guest boots in that (a bare number is bytes)", bq(c->memorytext));
	for (i = 0; i < c->provisions.n; i++)
		if (strcmp(p[i].mode, "ansible") == 0)
			warn("provision mode `ansible` is deprecated, use `ansible-playbook %s` instead", p[i].playbook ? p[i].playbook : "");
		else if (strstr(p[i].script, "LIMA_CIDATA"))
			warn("provisioning scripts should not reference the LIMA_CIDATA variables");
	for (i = 0; i < c->mounts.n; i++)
		if (access(m[i].location, F_OK) < 0 && strcmp(m[i].location, "/tmp/lima") != 0)
			warn("field `mounts[%zu].location` refers to a non-existent directory: %s: start makes it", i, bq(m[i].location));
	for (i = 0; i < c->forwards.n; i++) {
		g = f[i].guestports;
		if (f[i].isstatic <= 0 || (f[i].guestsocket && *f[i].guestsocket))
			continue;
		if (g.to - g.from >= PORTMAX)
			warn("portForwards[%zu]: `static: true` needs a `guestPort` or a range of no more than %d", i, PORTMAX);
	}
	for (i = 0; i < NLAYER; i++)
		if (i != INSTANCE && (n = l->root[i]) && n->kind == Y_MAP && (n = yget(n, "portForwards")) && n->kind == Y_SEQ && !n->n)
			warn("%s: `portForwards: []` has no meaning there; in a lima.yaml it switches automatic forwarding off", l->where[i]);
}

/* What this driver refuses of a valid configuration, and what is experimental:
 * for instances that are made or started (spec/config.md 12.2 and 12.3). */
static void
checkdriver(const struct conf *c)
{
	const struct { bool is; const char *what; } t[] = {
		{ c->mounttype && strcmp(c->mounttype, "virtiofs") == 0, "`mountType: virtiofs` on Linux" },
		{ strcmp(c->arch, "x86_64") != 0 && strcmp(c->arch, "aarch64") != 0, keep("`arch: %s `", c->arch) },
		{ strcmp(c->display, "vnc") == 0, "`video.display: vnc`" },
		{ *c->audiodevice, "`audio.device`" },
		{ *c->audiointerface, "`audio.interface`" },
		{ c->inotify > 0, "`mountInotify`" },
		{ !c->sudo, "`user.passwordlessSudo: false`" },
	};
	static bool told;
	size_t i;

	if (strcmp(c->vmtype, "qemu") != 0)
		die("failed to create driver instance: unknown or unsupported VM type: %s", c->vmtype);
	if (c->mounttype && strcmp(c->mounttype, "wsl2") == 0)
		die("field `mountType` must be one of [reverse-sshfs 9p virtiofs] for QEMU driver on Linux, got `wsl2`");
	for (i = 0; i < LEN(t) && !told; i++)
		if (t[i].is)
			warn("%s is experimental", t[i].what);
	if (!told && !c->sudo && c->param.n)
		warn("`param` still relies on sudo internally, it may not work as expected when `user.passwordlessSudo: false` is set");
	told = true;            /* a start that makes its instance comes by twice */
}

static void
confcheck(struct conf *c)
{
	const struct rule *r;
	const struct key *k;
	const struct list *l;
	const char *s, *a = c->audiointerface;
	char why[128];
	long long size;
	bool onway;
	size_t i;

	for (r = rules; r < rules + LEN(rules); r++) {
		k = keyrow(confkeys, r->path, &onway);
		if (r->check && (s = r->check(c, k->type == KSTR ? *(const char **)((char *)c + k->off) : NULL)))
			conferr(c, "%s", s);
		if (k->type == KSIZE && parsesize(*(const char **)((char *)c + k->text), &size, why) < 0)
			conferr(c, "field `%s` has an invalid value: %s", k->path, why);
		l = (const struct list *)((char *)c + k->off);
		for (i = 0; r->each && i < l->n; i++)
			if (!r->each(c, (const char *)l->v + i * k->size, keep("%s[%zu]", k->path, i)))
				return;
	}
	/* this one stands for all others, as it does in limactl */
	if (a && *a && strcmp(a, "hda") != 0 && strcmp(a, "virtio") != 0)
		c->errs = keep("invalid audio.interface \"%s\", must be \"hda\" or \"virtio\"", a);
}

/* The last text that was loaded without a complaint and would be the same under
 * any name: a hundred instances of one template are read once. */
static struct { struct buf text; struct conf c; } twin;

/* Is this that text, and made by the same limactl?  Then *c is that too. */
static bool
conflike(struct conf *c, const char *text, size_t len)
{
	const struct conf own = *c;

	if (!twin.c.name || twin.text.len != len || memcmp(twin.text.s, text, len) != 0 ||
	    own.foreign != twin.c.foreign || own.made != twin.c.made)
		return false;
	*c = twin.c;
	c->name = own.name;
	c->dir = own.dir;
	c->version = own.version;
	return true;
}

/* The effective configuration of instance name from its text.  where: for
 * messages.  What is wrong stands in c->errs afterwards. */
static void
confload(struct conf *c, const char *name, const char *text, size_t len, const char *where, bool warnings)
{
	struct layers l = { .c = c, .warn = warnings };
	const struct ynode *n;
	const struct key *k;
	struct ydoc doc = { 0 };
	bool automount = true, silent = false;
	int i;

	*c = (struct conf){ .name = name, .dir = keep("%s/%s", host.limahome, name), .autoforward = true, .agent = true, .strict = warnings };
	madeby(c);
	if (!warnings && conflike(c, text, len))
		return;
	unsetall(confkeys, c);
	if (!shared.read) {
		readshared(OVERRIDE, "override");
		readshared(DEFAULT, "default");
		shared.read = true;
	}
	for (i = 0; i < NLAYER; i++) {
		l.where[i] = i == INSTANCE ? where : shared.where[i];
		l.root[i] = shared.doc[i].root;
		if (shared.err[i])
			conferr(c, "%s", shared.err[i]);
	}
	if (yparse(&doc, text, len) < 0)
		conferr(c, "failed to unmarshal YAML (%s): [%d:%d] %s", where, doc.eline, doc.ecol, doc.err);
	l.root[INSTANCE] = doc.root;
	for (i = 0; i < NLAYER && !c->errs; i++)
		if ((n = l.root[i]) && n->kind != Y_MAP && (n->kind != Y_NULL || n->len))
			conferr(c, "failed to unmarshal YAML (%s): [%d:%d] %s was used where mapping is expected",
			    l.where[i], n->line, n->col, n->kind == Y_NULL ? "null" : strchr(kindname[n->kind], ' ') + 1);
	if (c->errs)
		goto out;
	checkmany(&l);
	if (c->errs)
		goto out;
	for (i = 0; i < NLAYER; i++)
		if (l.root[i]->kind == Y_MAP)
			walkkeys(&l, i, confkeys, l.root[i], "", NULL);
	checkused(&l);
	for (k = confkeys; k->path; k++) {
		for (i = 0; i < NLAYER; i++) {
			n = l.val[k - confkeys][i];
			if (n && k->off == offsetof(struct conf, mounts))
				automount = false;
			if (n && k->off == offsetof(struct conf, forwards) && i == INSTANCE)
				silent = n->kind == Y_SEQ && !n->n;
		}
		if (k->type == KRAW)
			mergeraw(&l, k);
		else
			merge(&l, k);
	}
	qemuopts(&l);
	emptydefaults(c);
	c->lazyengine = c->containerduser < 0 && c->containerdsystem <= 0;
	filldefs(c, confkeys, c);
	if (c->errs)
		goto out;
	fillhomevars(&l);
	fillimages(c, &c->images);
	fillimages(c, &c->firmware);
	fillarchives(c);
	fillprovisions(&l);
	fillprobes(&l);
	fillforwards(&l);
	fillcopies(&l);
	automount &= !c->foreign;
	if (automount)
		automounts(c);
	fillmounts(&l);
	fillnetworks(&l);
	c->autoforward = !silent || c->forwards.n;
	plaingate(c, automount, warnings);
	if (!c->errs)
		confcheck(c);
	if (warnings && !c->errs)
		warnconf(&l);
	/* does nothing in it come from the name or the directory? */
	if (!warnings && !c->errs && !shared.doc[OVERRIDE].root->n && !shared.doc[DEFAULT].root->n &&
	    !c->networks.n && !c->forwards.n && !memmem(text, len, "{{", 2)) {
		twin.text.len = 0;
		bufadd(&twin.text, text, len);
		twin.c = *c;
	}
out:
	yfree(&l.vars);
	yfree(&doc);
}

/* ---- 11. Expressions ---------------------------------------------------- */

/* The subset of yq that --set, --yq, --filter and `template yq` take.
 *
 * An expression maps a value to any number of values.  It is parsed into a tree
 * whose nodes are rows of the two tables below, operators and functions, and
 * evaluated by walking it over the nodes of yaml.c, which are changed in place:
 * so what an assignment does not touch keeps its source text and its comments.
 * A value is a place: where no node stands yet, it knows the place above and its
 * key, and an assignment makes what lacks.  `up` of a value that has its node is
 * NULL.  All of it lives in the document's arena. */

#define XDEPTH  200             /* levels of parentheses */
#define XNODES  5000            /* operators and operands */
#define XSTEPS  2000000         /* evaluations, and nodes copied: bounds what a short text can ask for */

struct xval  { struct ynode *n, *key; struct xval *up; };
struct xlist { struct xval **v; size_t n, cap; };
struct xnode { const struct xop *op; struct xnode *l, *r; struct ynode *lit; };
struct x {
	struct ydoc *d;
	const char *s, *p;      /* the expression, where it is read */
	const char *text;       /* what test() looks at */
	bool noenv, nofile;     /* env() and load() are refused */
	bool create;            /* we are left of an assignment: [] makes a list */
	bool foreign;           /* failed at what yq itself may know */
	int depth, made;
	long steps;
	char err[256];
	jmp_buf out;
};
struct xop {
	const char *word;
	int prec;               /* operators; of functions: least and most arguments, as 10 * least + most */
	void (*run)(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out);
	struct ynode *(*pair)(struct x *x, struct ynode *l, struct ynode *r);   /* of two values one */
};

static const char *const xtags[] = { "!!null", "!!bool", "!!int", "!!float", "!!str", "!!seq", "!!map" };

static void xeval(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out);
static struct xnode *xexpr(struct x *x, int prec);

static _Noreturn PRINTF(2, 3) void
xfail(struct x *x, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(x->err, sizeof x->err, fmt, ap);
	va_end(ap);
	longjmp(x->out, 1);
}

static void
xcount(struct x *x, const struct ynode *n)
{
	if (++x->steps > XSTEPS)
		xfail(x, "the expression makes too much out of its input");
	for (n = n ? n->first : NULL; n; n = n->next)
		xcount(x, n);
}

static void
xpush(struct x *x, struct xlist *l, struct xval *v)
{
	struct xval **grown;

	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 4;
		grown = yalloc(&x->d->a, l->cap * sizeof *grown);
		if (l->n)
			memcpy(grown, l->v, l->n * sizeof *grown);
		l->v = grown;
	}
	l->v[l->n++] = v;
}

static struct xval *
xnew(struct x *x, struct ynode *n, struct xval *up, struct ynode *key)
{
	struct xval *v = yalloc(&x->d->a, sizeof *v);

	*v = (struct xval){ n ? n : ynewnull(x->d), key, n ? NULL : up };
	return v;
}

static void
xout(struct x *x, struct xlist *out, struct ynode *n)
{
	xpush(x, out, xnew(x, n, NULL, NULL));
}

static struct xlist
xvalues(struct x *x, const struct xnode *e, struct xval *in, bool create)
{
	struct xlist l = { 0 };
	bool was = x->create;

	x->create = create;
	xeval(x, e, in, &l);
	x->create = was;
	return l;
}

static bool
xtrue(const struct ynode *n)
{
	return n->kind != Y_NULL && (n->kind != Y_BOOL || n->i);
}

static const char *
xstr(const struct ynode *n)
{
	const char *s = ystr(n);

	return s ? s : "null";
}

static bool
xnumeric(const struct ynode *n)
{
	return n->kind == Y_INT || n->kind == Y_FLOAT;
}

static struct ynode *
xnumber(struct x *x, double f)
{
	return f > -1e15 && f < 1e15 && f == (double)(long long)f ? ynewint(x->d, (long long)f) : ynewfloat(x->d, f);
}

/* The item of a list, from its end when i is negative, or NULL. */
static struct ynode *
xitem(const struct ynode *seq, long long i)
{
	struct ynode *n = seq->first;

	if (i < 0)
		i += (long long)seq->n;
	if (i < 0)
		return NULL;
	while (n && i--)
		n = n->next;
	return n;
}

/* The value of a key below v: a string, or a number for a list. */
static struct xval *
xget(struct x *x, struct xval *v, struct ynode *key)
{
	struct ynode *n = v->n;

	switch (n->kind) {
	case Y_NULL:
		return xnew(x, NULL, v, key);
	case Y_MAP:
		return xnew(x, ygetn(n, xstr(key), strlen(xstr(key))), v, key);
	case Y_SEQ:
		if (key->kind != Y_INT)
			xfail(x, "cannot index array with '%s'", xstr(key));
		return xnew(x, xitem(n, key->i), v, key);
	default:
		if (x->create)
			xfail(x, "cannot set '%s' of a scalar", xstr(key));
		return xnew(x, NULL, v, key);
	}
}

/* The node of a value, made with all above it when it is not there yet. */
static struct ynode *
xreal(struct x *x, struct xval *v)
{
	struct ynode *up;
	long long i;

	if (!v->up)
		return v->n;
	up = xreal(x, v->up);
	i = v->key->i;
	yconvert(up, v->key->kind == Y_INT ? Y_SEQ : Y_MAP);
	if (up->kind == Y_MAP) {
		v->n = ygetn(up, ykeytext(v->key), ykeylen(v->key));
		if (!v->n)
			v->n = yputn(x->d, up, ykeytext(v->key), ykeylen(v->key), ynewnull(x->d));
	} else {
		if (up->kind != Y_SEQ || i < 0 || i > YMAXNODES)
			xfail(x, "cannot set '%s' of a %s", xstr(v->key), xtags[up->kind]);
		while ((long long)up->n <= i)
			yappend(x->d, up, ynewnull(x->d));
		v->n = xitem(up, i);
	}
	v->up = NULL;
	return v->n;
}

/* Make old what v says, changing no more than differs: what stays, stays with
 * its comments.  The node that now stands there. */
static struct ynode *
xput(struct x *x, struct ynode *old, struct ynode *v)
{
	struct ynode *k, *next, *have, *item;
	size_t same = 0, i;

	if (old == v || old->kind != v->kind || old->kind < Y_SEQ || !old->n || !v->n)
		return yreplace(x->d, old, v);
	if (old->kind == Y_MAP) {
		for (k = old->first; k; k = k->next)
			same += ygetn(v, ykeytext(k->key), ykeylen(k->key)) != NULL;
		if (!same)
			return yreplace(x->d, old, v);
		for (k = old->first; k; k = next) {
			next = k->next;
			if (!ygetn(v, ykeytext(k->key), ykeylen(k->key)))
				ydel(x->d, k);
		}
		for (k = v->first; k; k = k->next) {
			if ((have = ygetn(old, ykeytext(k->key), ykeylen(k->key))))
				xput(x, have, k);
			else
				yputn(x->d, old, ykeytext(k->key), ykeylen(k->key), k);
		}
		return old;
	}
	/* a list that got items in front */
	if (v->n > old->n) {
		for (k = xitem(v, -(long long)old->n), item = old->first; item && yequal(k, item); item = item->next)
			k = k->next;
		if (!item) {
			for (i = v->n - old->n; i--; )
				yprepend(x->d, old, xitem(v, (long long)i));
			return old;
		}
	}
	/* or lost some and got others behind */
	for (item = old->first, k = v->first; item; item = item->next)
		if (k && yequal(item, k))
			same++, k = k->next;
	if (!same)
		return yreplace(x->d, old, v);
	for (item = old->first, k = v->first; item; item = next) {
		next = item->next;
		if (k && yequal(item, k))
			k = k->next;
		else
			ydel(x->d, item);
	}
	for (; k; k = k->next)
		yappend(x->d, old, k);
	return old;
}

static void
xset(struct x *x, struct xval *to, struct ynode *v, struct xval *in)
{
	struct ynode *old;

	xcount(x, v);
	if (v->parent || v == x->d->root)
		v = ycopy(x->d, v);     /* it may be part of what is changed */
	old = xreal(x, to);
	to->n = xput(x, old, v);
	if (in->n == old)
		in->n = to->n;
}

/* ---- operators ---- */

/* Does the text match the pattern, * any run and ? any character of it? */
static bool
xglob(const char *p, const char *s)
{
	const char *star = NULL, *back = NULL;

	for (;;) {
		if (*p == '*') {
			star = ++p;
			back = s;
		} else if (*s && (*p == '?' || *p == *s)) {
			p++, s++;
		} else if (!*s && !*p) {
			return true;
		} else if (star && *back) {
			p = star;
			s = ++back;
		} else
			return false;
	}
}

static bool
xsame(const struct ynode *l, const struct ynode *r)
{
	if (l->kind == Y_NULL || r->kind == Y_NULL)
		return l->kind == r->kind;
	return l->kind < Y_SEQ && r->kind < Y_SEQ && xglob(xstr(r), xstr(l));
}

static struct ynode *xeq(struct x *x, struct ynode *l, struct ynode *r) { return ynewbool(x->d, xsame(l, r)); }
static struct ynode *xne(struct x *x, struct ynode *l, struct ynode *r) { return ynewbool(x->d, !xsame(l, r)); }

/* <0, 0, >0; 2 when one is null, which is neither less nor greater */
static int
xcmp(struct x *x, const struct ynode *l, const struct ynode *r)
{
	if (l->kind == Y_NULL || r->kind == Y_NULL)
		return l->kind == r->kind ? 0 : 2;
	if (xnumeric(l) && xnumeric(r))
		return l->f < r->f ? -1 : l->f > r->f;
	if (l->kind != Y_STR || r->kind != Y_STR)
		xfail(x, "%s not yet supported for comparison with %s", xtags[l->kind], xtags[r->kind]);
	return strcmp(xstr(l), xstr(r)) < 0 ? -1 : strcmp(xstr(l), xstr(r)) > 0;
}

static struct ynode *xlt(struct x *x, struct ynode *l, struct ynode *r) { return ynewbool(x->d, xcmp(x, l, r) < 0); }
static struct ynode *xgt(struct x *x, struct ynode *l, struct ynode *r) { return ynewbool(x->d, xcmp(x, l, r) == 1); }
static struct ynode *xle(struct x *x, struct ynode *l, struct ynode *r) { return ynewbool(x->d, xcmp(x, l, r) <= 0); }
static struct ynode *
xge(struct x *x, struct ynode *l, struct ynode *r)
{
	int c = xcmp(x, l, r);

	return ynewbool(x->d, c == 0 || c == 1);
}

/* Both have to be numbers for what has no other meaning. */
static void
xneednumbers(struct x *x, const struct ynode *l, const struct ynode *r, const char *what)
{
	if (!xnumeric(l) || !xnumeric(r))
		xfail(x, "%s (%s) cannot be %s a %s", xtags[l->kind], l->kind < Y_SEQ ? xstr(l) : "", what, xtags[r->kind]);
}

static struct ynode *
xadd(struct x *x, struct ynode *l, struct ynode *r)
{
	struct ynode *v, *k;

	if (l->kind == Y_NULL || r->kind == Y_NULL)
		return l->kind == Y_NULL ? r : l;
	if (l->kind == Y_SEQ || (l->kind == Y_MAP && r->kind == Y_MAP)) {
		xcount(x, l);
		xcount(x, r);
		v = ycopy(x->d, l);
		for (k = r->kind == l->kind ? r->first : NULL; k; k = k->next)
			if (v->kind == Y_SEQ)
				yappend(x->d, v, k);
			else
				yputn(x->d, v, ykeytext(k->key), ykeylen(k->key), k);
		if (r->kind != l->kind)
			yappend(x->d, v, r);
		return v;
	}
	if (l->kind == Y_STR && r->kind < Y_SEQ) {
		x->steps += (long)(strlen(xstr(l)) + strlen(xstr(r))) / 64;
		xcount(x, NULL);
		return ynewstr(x->d, yprintf(&x->d->a, "%s%s", xstr(l), xstr(r)));
	}
	xneednumbers(x, l, r, "added to");
	return xnumber(x, l->f + r->f);
}

static struct ynode *
xsub(struct x *x, struct ynode *l, struct ynode *r)
{
	xneednumbers(x, l, r, "subtracted from");
	return xnumber(x, l->f - r->f);
}

/* Deep merge of r into a copy of l. */
static void
xmerge(struct x *x, struct ynode *into, struct ynode *r)
{
	struct ynode *k, *have;

	for (k = r->first; k; k = k->next)
		if ((have = ygetn(into, ykeytext(k->key), ykeylen(k->key))) && have->kind == Y_MAP && k->kind == Y_MAP)
			xmerge(x, have, k);
		else
			yputn(x->d, into, ykeytext(k->key), ykeylen(k->key), k);
}

static struct ynode *
xmul(struct x *x, struct ynode *l, struct ynode *r)
{
	struct ynode *v;

	if (r->kind == Y_MAP && (l->kind == Y_MAP || l->kind == Y_NULL)) {
		xcount(x, l);
		xcount(x, r);
		v = l->kind == Y_MAP ? ycopy(x->d, l) : ynewmap(x->d);
		xmerge(x, v, r);
		return v;
	}
	if (l->kind == Y_SEQ && r->kind == Y_SEQ)
		return r;
	xneednumbers(x, l, r, "multiplied with");
	return xnumber(x, l->f * r->f);
}

static struct ynode *
xdiv(struct x *x, struct ynode *l, struct ynode *r)
{
	xneednumbers(x, l, r, "divided by");
	return xnumber(x, l->f / r->f);
}

static struct ynode *
xmod(struct x *x, struct ynode *l, struct ynode *r)
{
	xneednumbers(x, l, r, "taken modulo");
	if (l->kind != Y_INT || r->kind != Y_INT || !r->i || r->i == -1)
		xfail(x, "cannot take %s modulo %s", xstr(l), xstr(r));
	return ynewint(x->d, l->i % r->i);
}

/* Each value of the left with each of the right. */
static void
xpairs(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist l = xvalues(x, e->l, in, false), r = xvalues(x, e->r, in, false);
	size_t i, k;

	for (i = 0; i < l.n; i++)
		for (k = 0; k < r.n; k++, xcount(x, NULL))
			xout(x, out, e->op->pair(x, l.v[i]->n, r.v[k]->n));
}

/* l // r: the values of l that are true, else those of r */
static void
xelse(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist l = xvalues(x, e->l, in, false);
	size_t i, n = out->n;

	for (i = 0; i < l.n; i++)
		if (xtrue(l.v[i]->n))
			xpush(x, out, l.v[i]);
	if (out->n == n)
		xeval(x, e->r, in, out);
}

static bool
xany(struct x *x, const struct xnode *e, struct xval *in)
{
	struct xlist l = xvalues(x, e, in, false);
	size_t i;

	for (i = 0; i < l.n; i++)
		if (xtrue(l.v[i]->n))
			return true;
	return false;
}

static void
xandor(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	bool l = xany(x, e->l, in), isor = e->op->word[0] == 'o';

	xout(x, out, ynewbool(x->d, l == isor ? l : xany(x, e->r, in)));
}

static void
xpipe(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist l = { 0 };
	size_t i;

	xeval(x, e->l, in, &l);
	for (i = 0; i < l.n; i++)
		xeval(x, e->r, l.v[i], out);
}

static void
xunion(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	xeval(x, e->l, in, out);
	xeval(x, e->r, in, out);
}

/* = |= += -= *=: the right side against the input, or for |= against each left
 * value; the result is the input. */
static void
xassign(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	bool each = e->op->word[0] == '|';
	struct xlist r = { 0 }, l;
	size_t i;

	if (!each)
		r = xvalues(x, e->r, in, false);
	l = xvalues(x, e->l, in, true);
	for (i = 0; i < l.n; i++) {
		if (each)
			r = xvalues(x, e->r, l.v[i], false);
		if (r.n)
			xset(x, l.v[i], e->op->pair ? e->op->pair(x, l.v[i]->n, r.v[0]->n) : r.v[0]->n, in);
	}
	xpush(x, out, in);
}

/* e style = "double" */
static void
xstyle(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	static const struct { const char *name; enum ystyle scalar, coll; } t[] = {
		{ "double", Y_DOUBLE, Y_BLOCK }, { "single", Y_SINGLE, Y_BLOCK }, { "literal", Y_LITERAL, Y_BLOCK },
		{ "folded", Y_FOLDED, Y_BLOCK }, { "flow", Y_PLAIN, Y_FLOW }, { "", Y_PLAIN, Y_BLOCK },
	};
	struct xlist r = xvalues(x, e->r, in, false), l = xvalues(x, e->l, in, true);
	struct ynode *n;
	size_t i, k;

	for (k = 0; r.n && k < LEN(t) && strcmp(t[k].name, xstr(r.v[0]->n)) != 0; k++)
		;
	if (k == LEN(t))
		xfail(x, "unknown style %s", xstr(r.v[0]->n));
	for (i = 0; r.n && i < l.n; i++) {
		n = l.v[i]->n;
		if (l.v[i]->up || (n->kind != Y_STR && n->kind < Y_SEQ) || n->style == (n->kind < Y_SEQ ? t[k].scalar : t[k].coll))
			continue;
		n->style = n->kind < Y_SEQ ? t[k].scalar : t[k].coll;
		n->fresh = true;
		n->dirty = false;       /* ytouch stops at what is dirty */
		ytouch(n);
	}
	xpush(x, out, in);
}

/* Longer words before their beginnings. */
static const struct xop xops[] = {
	{ "|=", 40, xassign, NULL }, { "+=", 40, xassign, xadd }, { "-=", 40, xassign, xsub }, { "*=", 42, xassign, xmul },
	{ "==", 40, xpairs, xeq }, { "!=", 40, xpairs, xne }, { "<=", 40, xpairs, xle }, { ">=", 40, xpairs, xge },
	{ "<", 40, xpairs, xlt }, { ">", 40, xpairs, xgt }, { "=", 40, xassign, NULL }, { "style", 40, xstyle, NULL },
	{ "//", 42, xelse, NULL }, { "*", 42, xpairs, xmul }, { "/", 42, xpairs, xdiv }, { "%", 42, xpairs, xmod },
	{ "+", 42, xpairs, xadd }, { "-", 42, xpairs, xsub },
	{ "|", 30, xpipe, NULL }, { "and", 20, xandor, NULL }, { "or", 20, xandor, NULL }, { ",", 10, xunion, NULL },
};

/* ---- paths and functions ---- */

static void
xself(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	(void)e;
	xpush(x, out, in);
}

/* The values of a collection; none of anything else. */
static void
xchildren(struct x *x, struct xval *v, struct xlist *out)
{
	struct ynode *n;

	if (x->create && v->n->kind == Y_NULL)
		yconvert(xreal(x, v), Y_SEQ);
	for (n = v->n->first; n; n = n->next)
		xout(x, out, n);
}

/* l[r], l.key, and l[] without r */
static void
xindex(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist l = { 0 }, r;
	size_t i, k;

	xeval(x, e->l, in, &l);
	r = e->r ? xvalues(x, e->r, in, false) : (struct xlist){ 0 };
	for (i = 0; i < l.n; i++) {
		if (!e->r)
			xchildren(x, l.v[i], out);
		for (k = 0; k < r.n; k++)
			xpush(x, out, xget(x, l.v[i], r.v[k]->n));
	}
}

static void
xdescend(struct x *x, struct ynode *n, struct xlist *out)
{
	xcount(x, NULL);
	xout(x, out, n);
	for (n = n->first; n; n = n->next)
		xdescend(x, n, out);
}

static void
xrecursive(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	(void)e;
	xdescend(x, in->n, out);
}

static void
xliteral(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	(void)in;
	xout(x, out, ycopy(x->d, e->lit));
}

static void
xcollect(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct ynode *seq = ynewseq(x->d);
	struct xlist l = { 0 };
	size_t i;

	if (e->l)
		l = xvalues(x, e->l, in, false);
	for (i = 0; i < l.n; i++) {
		xcount(x, l.v[i]->n);
		yappend(x->d, seq, l.v[i]->n);
	}
	xout(x, out, seq);
}

/* {l: value of l's r, ...}: a list of entries by r, each with key l and value r */
static void
xobject(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct ynode *map = ynewmap(x->d);
	struct xlist k, v;

	for (e = e->r; e; e = e->r) {
		k = xvalues(x, e->l->l, in, false);
		v = xvalues(x, e->l->r, in, false);
		if (k.n && v.n) {
			xcount(x, v.v[0]->n);
			(void)yput(x->d, map, xstr(k.v[0]->n), v.v[0]->n);
		}
	}
	xout(x, out, map);
}

static const struct xop xselfop = { ".", 0, xself, NULL }, xdeepop = { "..", 0, xrecursive, NULL }, xindexop = { "[]", 0, xindex, NULL },
    xlitop = { "", 0, xliteral, NULL }, xcollectop = { "[", 0, xcollect, NULL }, xobjectop = { "{", 0, xobject, NULL },
    xpipeop = { "|", 30, xpipe, NULL };

static void
xselect(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	if (xany(x, e->l, in))
		xpush(x, out, in);
}

static void
xdel(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist l = xvalues(x, e->l, in, false);
	size_t i;

	for (i = 0; i < l.n; i++)
		ydel(x->d, l.v[i]->n);
	xpush(x, out, in);
}

/* A regular expression as far as test() needs one: ( ) | * + ? . [ ] ^ $ and
 * \d \w \s.  It is matched by going back where a way fails, and each step
 * counts, so that no pattern takes long. */

/* What is to match behind this: a rest of the pattern.  again: its + has been
 * met once; from: where the text stood, for a loop has to get on. */
struct xthen { const char *p, *end, *from; bool again; const struct xthen *then; };

static bool xalternatives(struct x *x, const char *p, const char *end, const char *s, const struct xthen *then);

/* Where the atom at p ends. */
static const char *
xatom(struct x *x, const char *p, const char *end)
{
	const char *at = p++;
	int open = 1;

	if (*at == '\\')
		p++;
	else if (*at == '[')
		for (p += *p == '^', p += *p == ']'; p <= end && p[-1] != ']'; p++)
			;
	else if (*at == '(')
		for (; p < end && open; p += *p == '\\' ? 2 : 1)
			open += *p == '(' ? 1 : *p == ')' ? -1 : 0;
	if (strchr("*+?{)", *at) || p > end || (*at == '(' && open))
		xfail(x, "error parsing regexp: `%s`", at);
	return p;
}

/* Is c what the atom of one character says? */
static bool
xone(const char *p, const char *end, unsigned char c)
{
	bool not = p[1] == '^', hit = false;

	if (*p == '\\')
		return p[1] == 'd' ? isdigit(c) : p[1] == 'w' ? wordchar(c) : p[1] == 's' ? isspace(c) : p[1] == (char)c;
	if (*p != '[')
		return *p == '.' || *p == (char)c;
	for (p += 1 + not; p < end - 1; p++)
		if (p[1] == '-' && p + 2 < end - 1) {
			hit |= c >= (unsigned char)p[0] && c <= (unsigned char)p[2];
			p += 2;
		} else
			hit |= c == (unsigned char)*p;
	return hit != not;
}

static bool
xsequence(struct x *x, const char *p, const char *end, const char *s, bool again, const struct xthen *then)
{
	const char *e, *rest;
	struct xthen loop;
	char q;

	xcount(x, NULL);
	if (p == end)
		return !then || (then->from != s && xsequence(x, then->p, then->end, s, then->again, then->then));
	if (*p == '^' || *p == '$')
		return (*p == '^' ? s == x->text : !*s) && xsequence(x, p + 1, end, s, false, then);
	e = xatom(x, p, end);
	q = e < end && strchr("*+?", *e) ? *e : 0;
	rest = e + (q != 0);
	if ((q == '*' || q == '?' || (q == '+' && again)) && xsequence(x, rest, end, s, false, then))
		return true;
	loop = q == '*' || q == '+' ? (struct xthen){ p, end, s, true, then } : (struct xthen){ rest, end, NULL, false, then };
	if (*p == '(')
		return xalternatives(x, p + 1, e - 1, s, &loop);
	return *s && xone(p, e, (unsigned char)*s) && xsequence(x, loop.p, end, s + 1, loop.again, then);
}

static bool
xalternatives(struct x *x, const char *p, const char *end, const char *s, const struct xthen *then)
{
	const char *bar;

	for (bar = p; bar < end && *bar != '|'; bar = strchr("^$*+?{", *bar) ? bar + 1 : xatom(x, bar, end))
		;
	return xsequence(x, p, bar, s, false, then) || (bar < end && xalternatives(x, bar + 1, end, s, then));
}

static void
xtest(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist l = xvalues(x, e->l, in, false);
	const char *re = l.n ? xstr(l.v[0]->n) : "", *s;
	bool hit = false;

	if (in->n->kind != Y_STR)
		xfail(x, "cannot match with %s, can only match strings. Hint: Most often you'll want to use '|=' over '=' for this operation", xtags[in->n->kind]);
	if (in->n->len > 10000)
		xfail(x, "test() takes strings up to 10000 bytes");
	for (s = x->text = in->n->s; !hit && (s == x->text || s[-1]); s++)
		hit = xalternatives(x, re, re + strlen(re), s, NULL);
	xout(x, out, ynewbool(x->d, hit));
}

/* unique, unique_by(e): the first of the items with the same text of e */
static void
xunique(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct ynode *seq = ynewseq(x->d), *n;
	struct xlist l;
	const char **seen = yalloc(&x->d->a, (in->n->n + 1) * sizeof *seen);
	size_t i, k = 0;

	if (in->n->kind != Y_SEQ)
		xfail(x, "only arrays are supported for unique");
	for (n = in->n->first; n; n = n->next) {
		struct buf b = { 0 };
		l = (struct xlist){ 0 };
		if (e->l)
			l = xvalues(x, e->l, xnew(x, n, NULL, NULL), false);
		yjson(&b, e->l ? l.n ? l.v[0]->n : ynewnull(x->d) : n, 0);
		seen[k] = ystrndup(&x->d->a, b.s, b.len);
		buffree(&b);
		for (i = 0; strcmp(seen[i], seen[k]) != 0; i++)
			xcount(x, NULL);
		if (i == k) {
			k++;
			yappend(x->d, seq, n);
		}
	}
	xout(x, out, seq);
}

/* The keys that lead to a value, behind what is in seq. */
static void
xpathof(struct x *x, struct ynode *seq, const struct ynode *n, const struct xval *v)
{
	const struct ynode *k;
	long long i = 0;

	if (v && v->up) {
		xpathof(x, seq, v->up->n, v->up);
		yappend(x->d, seq, v->key);
	} else if (n->parent) {
		xpathof(x, seq, n->parent, NULL);
		for (k = n->parent->first; k != n; k = k->next)
			i++;
		yappend(x->d, seq, n->key ? ynewstr(x->d, ykeytext(n->key)) : ynewint(x->d, i));
	}
}

static void
xpath(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct ynode *seq = ynewseq(x->d);

	(void)e;
	xpathof(x, seq, in->n, in);
	xout(x, out, seq);
}

static void
xsetpath(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist p = xvalues(x, e->l, in, false), r = xvalues(x, e->r, in, false);
	struct xval *v = in;
	struct ynode *k;

	if (!p.n || p.v[0]->n->kind != Y_SEQ)
		xfail(x, "SETPATH: path must be an array");
	for (k = p.v[0]->n->first; k; k = k->next)
		v = xget(x, v, k);
	if (r.n)
		xset(x, v, r.v[0]->n, in);
	xpush(x, out, in);
}

static void
xlength(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	const char *s;
	long long n = 0;

	(void)e;
	for (s = in->n->kind == Y_NULL || in->n->kind >= Y_SEQ ? "" : xstr(in->n); *s; s++)
		n += (*s & 0xc0) != 0x80;       /* characters of UTF-8 */
	xout(x, out, ynewint(x->d, n + (long long)in->n->n));
}

static void
xkeys(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct ynode *seq = ynewseq(x->d), *n;
	long long i = 0;

	(void)e;
	if (in->n->kind < Y_SEQ)
		xfail(x, "cannot get keys of %s, keys only works for maps and arrays", xtags[in->n->kind]);
	for (n = in->n->first; n; n = n->next)
		yappend(x->d, seq, n->key ? ynewstr(x->d, ykeytext(n->key)) : ynewint(x->d, i++));
	xout(x, out, seq);
}

static void
xhas(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xlist k = xvalues(x, e->l, in, false);
	const struct ynode *key = k.n ? k.v[0]->n : NULL;

	xout(x, out, ynewbool(x->d, key && (in->n->kind == Y_MAP ? yget(in->n, xstr(key)) != NULL :
	    in->n->kind == Y_SEQ && key->kind == Y_INT && xitem(in->n, key->i))));
}

static void
xnot(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	(void)e;
	xout(x, out, ynewbool(x->d, !xtrue(in->n)));
}

static void
xmap(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	struct xnode self = { .op = &xselfop }, all = { .op = &xindexop, .l = &self }, body = { &xpipeop, &all, e->l, NULL };

	xcollect(x, &(struct xnode){ .l = &body }, in, out);
}

static void
xtag(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	(void)e;
	xout(x, out, ynewstr(x->d, xtags[in->n->kind]));
}

static void
xzero(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	(void)e;
	(void)in;
	xout(x, out, ynewint(x->d, 0));
}

/* env(NAME): the variable read as YAML; strenv(NAME): as it is */
static void
xenv(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	const char *s = getenv(e->lit->s);
	struct ydoc d = { 0 };

	(void)in;
	if (!s)
		xfail(x, "value for env variable '%s' not provided in env()", e->lit->s);
	if (e->op->word[0] == 'e' && yparse(&d, s, strlen(s)) == 0)
		xout(x, out, ycopy(x->d, d.root));
	else
		xout(x, out, ynewstr(x->d, s));
	yfree(&d);
}

static const struct xop xfuncs[] = {
	{ "select", 11, xselect, NULL }, { "del", 11, xdel, NULL }, { "test", 11, xtest, NULL }, { "unique", 0, xunique, NULL },
	{ "unique_by", 11, xunique, NULL }, { "path", 0, xpath, NULL }, { "setpath", 22, xsetpath, NULL }, { "length", 0, xlength, NULL },
	{ "keys", 0, xkeys, NULL }, { "has", 11, xhas, NULL }, { "not", 0, xnot, NULL }, { "map", 11, xmap, NULL },
	{ "tag", 0, xtag, NULL }, { "type", 0, xtag, NULL }, { "document_index", 0, xzero, NULL }, { "di", 0, xzero, NULL },
	{ "env", 11, xenv, NULL }, { "strenv", 11, xenv, NULL },
};

static void
xeval(struct x *x, const struct xnode *e, struct xval *in, struct xlist *out)
{
	xcount(x, NULL);
	e->op->run(x, e, in, out);
}

/* ---- parser ---- */

static struct xnode *
xmake(struct x *x, const struct xop *op, struct xnode *l, struct xnode *r)
{
	struct xnode *e = yalloc(&x->d->a, sizeof *e);

	if (++x->made > XNODES)
		xfail(x, "the expression is too long");
	*e = (struct xnode){ op, l, r, NULL };
	return e;
}

static struct xnode *
xconst(struct x *x, struct ynode *lit)
{
	struct xnode *e = xmake(x, &xlitop, NULL, NULL);

	e->lit = lit;
	return e;
}

static void
xskip(struct x *x)
{
	while (*x->p == ' ' || (*x->p >= '\t' && *x->p <= '\r') || *x->p == '#')
		if (*x->p == '#')
			x->p += strcspn(x->p, "\n");
		else
			x->p++;
}

static bool
xeat(struct x *x, const char *s)
{
	xskip(x);
	if (!startswith(x->p, s))
		return false;
	x->p += strlen(s);
	return true;
}

static _Noreturn void
xbad(struct x *x)
{
	const char *s;
	int line = 1, col = 1;

	for (s = x->s; s < x->p; s++, col++)
		if (*s == '\n')
			line++, col = 0;
	x->foreign = *x->p != '\0';
	if (!*x->p)
		xfail(x, "%d:%d: the expression ends too early", line, col);
	xfail(x, "%d:%d: invalid input text \"%s\"", line, col, x->p);
}

static void
xneed(struct x *x, const char *s)
{
	if (!xeat(x, s))
		xbad(x);
}

/* Behind the opening quote: the text up to the closing one. */
static struct ynode *
xquoted(struct x *x)
{
	static const char esc[] = "n\nt\tr\r\"\"\\\\";
	struct buf b = { 0 };
	struct ynode *n;
	const char *e;

	bufputs(&b, "");
	for (; *x->p && *x->p != '"'; x->p++) {
		e = *x->p == '\\' && x->p[1] ? strchr(esc, x->p[1]) : NULL;
		bufputc(&b, e ? e[1] : *x->p);
		x->p += e != NULL;
	}
	n = ynewstr(x->d, b.s);
	buffree(&b);
	xneed(x, "\"");
	return n;
}

/* What may follow a primary without a blank: .key ."key" [e] [] ? */
static struct xnode *
xpostfix(struct x *x, struct xnode *e)
{
	size_t n;

	for (;;) {
		if (*x->p == '?') {
			x->p++;
		} else if (*x->p == '[' || (*x->p == '.' && x->p[1] == '[')) {
			x->p += *x->p == '.' ? 2 : 1;
			if (xeat(x, "]")) {
				e = xmake(x, &xindexop, e, NULL);
				continue;
			}
			e = xmake(x, &xindexop, e, xexpr(x, 0));
			xneed(x, "]");
		} else if (*x->p == '.' && x->p[1] == '"') {
			x->p += 2;
			e = xmake(x, &xindexop, e, xconst(x, xquoted(x)));
		} else if (*x->p == '.' && (n = strcspn(x->p + 1, " \t\r\n;}{:[],|.()=!?<>\"")) > 0) {
			if (x->p[n + 1] == '=' && strchr("+-*", x->p[n]))
				n--;            /* .a+=1 */
			e = xmake(x, &xindexop, e, xconst(x, ynewstr(x->d, ystrndup(&x->d->a, x->p + 1, n))));
			x->p += n + 1;
		} else
			return e;
	}
}

/* true, null, a function and its arguments */
static struct xnode *
xword(struct x *x)
{
	static const char *const files[] = { "load", "load_str", "load_xml", "load_props", "load_base64" };
	size_t n = wordlen(x->p), i;
	const char *w = ystrndup(&x->d->a, x->p, n);
	const struct xop *f = NULL;
	struct xnode *e;

	if (strcasecmp(w, "true") == 0 || strcasecmp(w, "false") == 0 || strcasecmp(w, "null") == 0) {
		x->p += n;
		return xconst(x, (*w | 32) == 'n' ? ynewnull(x->d) : ynewbool(x->d, (*w | 32) == 't'));
	}
	if (strcmp(w, "system") == 0)
		xfail(x, "system operations are disabled, use --security-enable-system-operator to enable");
	if (x->noenv && (strcmp(w, "env") == 0 || strcmp(w, "strenv") == 0 || strcmp(w, "envsubst") == 0))
		xfail(x, "env operations have been disabled");
	if (x->nofile && oneof(w, files, LEN(files)))
		xfail(x, "file operations have been disabled");
	for (i = 0; i < LEN(xfuncs); i++)
		if (strcmp(w, xfuncs[i].word) == 0)
			f = &xfuncs[i];
	if (!f)
		xbad(x);
	x->p += n;
	e = xmake(x, f, NULL, NULL);
	if (!f->prec)
		return e;
	xneed(x, "(");
	if (f->run == xenv) {
		xskip(x);
		n = strcspn(x->p, " \t)");
		e->lit = ynewstr(x->d, ystrndup(&x->d->a, x->p, n));
		x->p += n;
	} else
		e->l = xexpr(x, 0);
	if (f->prec == 22) {
		xneed(x, ";");
		e->r = xexpr(x, 0);
	}
	xneed(x, ")");
	return e;
}

static struct xnode *
xnumeral(struct x *x)
{
	size_t n = strspn(x->p + 1, "0123456789.abcdefxABCDEFX_") + 1;
	struct ydoc d = { 0 };
	struct ynode *v = NULL;

	if (yparse(&d, ystrndup(&x->d->a, x->p, n), n) == 0 && xnumeric(d.root))
		v = ycopy(x->d, d.root);
	yfree(&d);
	if (!v)
		xbad(x);
	v->line = 0;            /* of no document */
	x->p += n;
	return xconst(x, v);
}

/* Behind the {: entries up to the }. */
static struct xnode *
xentries(struct x *x)
{
	struct xnode *e = xmake(x, &xobjectop, NULL, NULL), *last = e, *k;
	size_t n;

	if (xeat(x, "}"))
		return e;
	do {
		xskip(x);
		if ((n = wordlen(x->p))) {
			k = xconst(x, ynewstr(x->d, ystrndup(&x->d->a, x->p, n)));
			x->p += n;
		} else
			k = xexpr(x, 11);
		xneed(x, ":");
		last = last->r = xmake(x, NULL, xmake(x, NULL, k, xexpr(x, 11)), NULL);
	} while (xeat(x, ","));
	xneed(x, "}");
	return e;
}

static struct xnode *
xprimary(struct x *x)
{
	struct xnode *e;
	const char *p;

	if (xeat(x, "(")) {
		e = xexpr(x, 0);
		xneed(x, ")");
	} else if (xeat(x, "[")) {
		e = xmake(x, &xcollectop, NULL, NULL);
		if (!xeat(x, "]")) {
			e->l = xexpr(x, 0);
			xneed(x, "]");
		}
	} else if (xeat(x, "{"))
		e = xentries(x);
	else if (xeat(x, "\""))
		e = xconst(x, xquoted(x));
	else if (xeat(x, ".."))
		e = xmake(x, &xdeepop, NULL, NULL);
	else if (*x->p == '.') {
		p = x->p;
		e = xpostfix(x, xmake(x, &xselfop, NULL, NULL));
		x->p += x->p == p;      /* . alone */
	} else if (xeat(x, "~"))
		e = xconst(x, ynewnull(x->d));
	else if (isdigit((unsigned char)*x->p) || (*x->p == '-' && isdigit((unsigned char)x->p[1])))
		e = xnumeral(x);
	else
		e = xword(x);
	return xpostfix(x, e);
}

/* Operands and the operators between them that bind at least so tight. */
static struct xnode *
xexpr(struct x *x, int prec)
{
	const struct xop *op;
	struct xnode *l;
	size_t n;

	if (++x->depth > XDEPTH)
		xfail(x, "the expression nests too deeply");
	l = xprimary(x);
	for (;;) {
		xskip(x);
		for (op = xops; op < xops + LEN(xops); op++) {
			n = strlen(op->word);
			if (strncmp(x->p, op->word, n) == 0 && !(isalpha((unsigned char)*op->word) && wordchar(x->p[n])))
				break;
		}
		if (op == xops + LEN(xops) || op->prec < prec)
			break;
		x->p += n;
		if (op->run == xstyle)
			xneed(x, "=");
		xskip(x);
		if (!*x->p)
			xfail(x, "'%s' expects 2 args but there is 1", op->word);
		l = xmake(x, op, l, xexpr(x, op->prec + 1));
	}
	x->depth--;
	return l;
}

/* Read an expression, whose tree is made in d.  The reason when it is none. */
static const char *
xparse(struct x *x, struct ydoc *d, const char *expr, struct xnode **e)
{
	x->d = d;
	x->s = x->p = expr;
	x->depth = x->made = 0;
	x->foreign = false;
	if (setjmp(x->out))
		return x->err;
	xskip(x);
	*e = *x->p ? xexpr(x, 0) : xmake(x, &xselfop, NULL, NULL);
	xskip(x);
	if (*x->p)
		xbad(x);
	return NULL;
}

/* Evaluate an expression on a document, which it may change; the values in out.
 * The reason when it fails. */
static const char *
xrun(struct x *x, struct ydoc *d, const char *expr, struct xlist *out)
{
	const char *why;
	struct xnode *e;

	if ((why = xparse(x, d, expr, &e)))
		return why;
	x->steps = 0;
	x->create = false;
	if (setjmp(x->out))
		return x->err;
	xeval(x, e, xnew(x, d->root, NULL, NULL), out);
	return NULL;
}

/* mikefarah's yq, or NULL: there are other programs of its name, and a link to
 * ourselves is one. */
static const char *
foreignyq(void)
{
	static const char *yq;
	static bool asked;
	struct buf b = { 0 };

	if (asked)
		return yq;
	asked = true;
	if ((yq = findprog("yq")) && (runto((char *[]){ keep("%s", yq), keep("--version"), NULL }, NULL, &b, -1) != 0 ||
	    !b.s || !strstr(b.s, "mikefarah") || strstr(b.s, "lima-c")))
		yq = NULL;
	buffree(&b);
	return yq;
}

/* Hand an expression beyond ours to yq with these options, its output in out.
 * False when it is not installed. */
static bool
xforeign(const char *expr, const char *const *opts, const char *text, size_t len, struct buf *out)
{
	const char *yq = foreignyq();
	struct args a = { 0 };
	int fd, st;

	if (!yq)
		return false;
	if ((fd = memfd_create("yq", MFD_CLOEXEC)) < 0 || writeall(fd, text, len) < 0)
		die("memfd_create:");
	arg(&a, "%s", yq);
	arg(&a, "--security-disable-env-ops");
	arg(&a, "--security-disable-file-ops");
	while (*opts)
		arg(&a, "%s", *opts++);
	arg(&a, "%s", expr);
	arg(&a, "/proc/%ld/fd/%d", (long)getpid(), fd);
	st = runto(a.v, NULL, out, -1);
	argsfree(&a);
	close(fd);
	if (st != 0)
		die("yq %s", ended(st));
	return true;
}

/* What to say of an expression that failed: mind the way out. */
static const char *
xwhy(const struct x *x)
{
	return x->foreign ? keep("%s (what limactl does not know itself needs yq of github.com/mikefarah/yq in PATH)", x->err) : keep("%s", x->err);
}

/* How results are shown. */
struct xlook { bool json, raw; int indent; };

/* A result and its line end.  A whole document keeps its comments. */
static void
xprint(struct buf *b, const struct xlook *how, struct ydoc *d, struct ynode *n)
{
	if (n->kind < Y_SEQ && how->raw)
		bufprintf(b, "%s\n", ystr(n) ? ystr(n) : "null");
	else if (how->json) {
		yjson(b, n, how->indent);
		bufputc(b, '\n');
	} else if (n == d->root && d->text && d->docend == d->len)
		ywrite(d, b);
	else
		yyaml(b, n, 0);
}

/* Evaluate an expression on the tree of d, which no text belongs to, and print
 * the results: of one tree scalars on one line, for line, else each on its own. */
static void
xquery(struct ydoc *d, const char *expr, const struct xlook *how, bool line, struct buf *out)
{
	struct x x = { .noenv = true, .nofile = true };
	struct xlist l = { 0 };
	struct buf b = { 0 };
	const char *why = xrun(&x, d, expr, &l);
	char ind[16];
	size_t i;

	if (why && x.foreign) {
		yjson(&b, d->root, 0);
		snprintf(ind, sizeof ind, "-I%d", how->indent);
		if (xforeign(expr, (const char *const[]){ "-pj", how->json ? "-oj" : "-oy", "-r", ind, NULL }, b.s, b.len, out))
			why = NULL;
		buffree(&b);
	}
	if (why)
		die("%s", xwhy(&x));
	for (i = 0; i < l.n; i++) {
		if (line && l.n > 1 && l.v[i]->n->kind >= Y_SEQ)
			die("the expression %s yields several values, not all of them scalars; put them in a list", bq(expr));
		xprint(out, how, d, l.v[i]->n);
		if (line && i + 1 < l.n)
			out->s[out->len - 1] = ' ';
	}
}

/* The text after an expression, or NULL with *why. */
static const char *
xedit(const char *text, const char *expr, const char **why)
{
	struct x x = { .noenv = true, .nofile = true };
	struct ydoc d = { 0 };
	struct xlist l = { 0 };
	struct buf out = { 0 };
	const char *r = NULL;

	*why = NULL;
	if (yparse(&d, text, strlen(text)) < 0)
		*why = keep("failed to unmarshal YAML: [%d:%d] %s", d.eline, d.ecol, d.err);
	else if (!xrun(&x, &d, expr, &l)) {
		if (l.n && l.v[0]->n != d.root)
			yreplace(&d, d.root, l.v[0]->n);
		if (l.n)
			ywrite(&d, &out);
		else
			bufputs(&out, "");
		r = keep("%s", out.s);
	} else if (x.foreign && xforeign(expr, &(const char *const){ NULL }, text, strlen(text), &out))
		r = keep("%s", out.s);
	else
		*why = xwhy(&x);
	buffree(&out);
	yfree(&d);
	return r;
}

/* ---- 12. Instances ------------------------------------------------------ */

enum state { SUNKNOWN, SSTOPPED, SRUNNING, SBROKEN };
static const char *const statename[] = { "", "Stopped", "Running", "Broken" };

struct inst {
	const char *name, *dir;
	enum state state;
	pid_t agent, driver;            /* holders of the locks; 0: none */
	struct conf conf;
	bool loaded;                    /* conf is there and without errors */
	struct strs errs;
	long long sshport;              /* 0: never started */
	bool protected;
	const char *version;            /* of the limactl that made it */
	const char *message;            /* rendered, without its last newline */
};

/* One complaint about an instance's name, or NULL. */
static const char *
badname(const char *s)
{
	const char *e = badident(s);
	size_t n = strlen(s);

	if (e)
		return keep("instance name %s is not a valid identifier: %s", bq(s), e);
	if ((n > 4 && strcasecmp(s + n - 4, ".yml") == 0) || (n > 5 && strcasecmp(s + n - 5, ".yaml") == 0))
		return keep("instance name %s must not end with .yml or .yaml suffix", bq(s));
	return NULL;
}

/* ssh makes a control socket NAME.16random first; unix(7) has 108 bytes. */
static void
checkpathlen(const char *name)
{
	const char *p = keep("%s/%s/ssh.sock.1234567890123456", host.limahome, name);

	if (strlen(p) >= UNIXPATHMAX)
		die("instance name %s too long: %s must be less than UNIX_PATH_MAX=%d characters, but is %zu",
		    bq(name), bq(p), UNIXPATHMAX, strlen(p));
}

static const char *
instdir(const char *name)
{
	return keep("%s/%s", host.limahome, name);
}

/* The port of the last start, out of ssh.config. */
static long long
portofconfig(const char *dir)
{
	struct buf b = { 0 };
	long long port = 0;
	char *line, *p;

	if (readfile(keep("%s/ssh.config", dir), &b, 65536) == 0)
		for (p = b.s; (line = strsep(&p, "\n")); )
			if (startswith(line += strspn(line, " \t"), "Port ") && parsenum(chomp(line + 5), 1, 65535, &port) == 0)
				break;
	buffree(&b);
	return port;
}

/* An instance as an object: a row names it in JSON and in templates. */
enum instfield {
	INAME, IHOSTNAME, ISTATUS, IDIR, IVMTYPE, IARCH, ICPUS, IMEMORY, IDISK, IMESSAGE, IADDDISKS, INETWORKS, ISSHPORT,
	ISSHCONFIG, IAGENTPID, IDRIVERPID, IERRORS, ICONFIG, ISSHADDRESS, IPROTECTED, IVERSION, IPARAM, IAUTOSTART,
	IHOSTOS, IHOSTARCH, ILIMAHOME, IIDENTITY, ISHARES, NINSTFIELD,
};
static const struct {
	const char *json, *go;
	bool always;                    /* in JSON also when empty */
} instfields[] = {
	[INAME] = { "name", "Name", true },           [IHOSTNAME] = { "hostname", "Hostname", true },
	[ISTATUS] = { "status", "Status", true },     [IDIR] = { "dir", "Dir", true },
	[IVMTYPE] = { "vmType", "VMType", true },     [IARCH] = { "arch", "Arch", true },
	[ICPUS] = { "cpus", "CPUs", false },          [IMEMORY] = { "memory", "Memory", false },
	[IDISK] = { "disk", "Disk", false },          [IMESSAGE] = { "message", "Message", false },
	[IADDDISKS] = { "additionalDisks", "AdditionalDisks", false }, [INETWORKS] = { "network", "Networks", false },
	[ISSHPORT] = { "sshLocalPort", "SSHLocalPort", false }, [ISSHCONFIG] = { "sshConfigFile", "SSHConfigFile", false },
	[IAGENTPID] = { "hostAgentPID", "HostAgentPID", false }, [IDRIVERPID] = { "driverPID", "DriverPID", false },
	[IERRORS] = { "errors", "Errors", false },    [ICONFIG] = { "config", "Config", false },
	[ISSHADDRESS] = { "sshAddress", "SSHAddress", false }, [IPROTECTED] = { "protected", "Protected", true },
	[IVERSION] = { "limaVersion", "LimaVersion", true }, [IPARAM] = { "param", "Param", false },
	[IAUTOSTART] = { "autoStartedIdentifier", "AutoStartedIdentifier", false },
	/* the last five are not limactl's fields or the host's: --filter does not see them, --list-fields does not name them */
	[IHOSTOS] = { "HostOS", "HostOS", true },     [IHOSTARCH] = { "HostArch", "HostArch", true },
	[ILIMAHOME] = { "LimaHome", "LimaHome", true }, [IIDENTITY] = { "IdentityFile", "IdentityFile", true },
	[ISHARES] = { "shares", "Shares", false },
};
_Static_assert(LEN(instfields) == NINSTFIELD, "name every field");

static const char *
addrports(const char *ip, struct range r)
{
	return r.from == r.to ? keep("%s:%lld", ip, r.from) : keep("%s:%lld-%lld", ip, r.from, r.to);
}

/* What an instance has in common with the host, in one object: to be looked
 * at now and then. */
static struct ynode *
instshares(struct ydoc *d, const struct conf *c)
{
	const struct mount *m = c->mounts.v;
	const struct forward *f = c->forwards.v;
	const struct cthost *t = c->copies.v;
	struct ynode *o = ynewmap(d), *s = ynewseq(d), *e;
	size_t i;

	for (i = 0; i < c->mounts.n; i++) {
		e = ynewmap(d);
		putstr(d, e, "location", m[i].location);
		putstr(d, e, "mountPoint", m[i].mountpoint);
		(void)yput(d, e, "writable", ynewbool(d, m[i].writable > 0));
		if (mountkind(c) == MT9P || (mountkind(c) == MTSSHFS && byopenssh(&m[i])))
			putstr(d, e, "notConfined", mountkind(c) == MT9P ?
			    "9p: QEMU, which can reach all that you can, keeps the guest to this directory" :
			    "openssh-sftp-server: the guest can reach all that you can");
		yappend(d, s, e);
	}
	(void)yput(d, o, "mounts", s);
	s = ynewseq(d);
	for (i = 0; i < c->forwards.n; i++) {
		if (f[i].ignore)
			continue;
		e = ynewmap(d);
		putstr(d, e, "guest", f[i].guestsocket && *f[i].guestsocket ? f[i].guestsocket : addrports(f[i].guestip, f[i].guestports));
		putstr(d, e, "host", f[i].hostsocket && *f[i].hostsocket ? f[i].hostsocket : addrports(f[i].hostip, f[i].hostports));
		(void)yput(d, e, "reverse", ynewbool(d, f[i].reverse > 0));
		yappend(d, s, e);
	}
	(void)yput(d, o, "portForwards", s);
	(void)yput(d, o, "automaticPortForwards", ynewbool(d, c->autoforward));
	(void)yput(d, o, "guestAgent", ynewbool(d, c->agent));
	(void)yput(d, o, "sshAgent", ynewbool(d, c->forwardagent > 0));
	(void)yput(d, o, "x11", ynewbool(d, c->forwardx11 > 0));
	s = ynewseq(d);
	for (i = 0; i < c->copies.n; i++)
		yappend(d, s, ynewstr(d, t[i].host));
	(void)yput(d, o, "copyToHost", s);
	return o;
}

/* The value of one field; conf: the filled configuration, NULL without one. */
static struct ynode *
instvalue(struct ydoc *d, const struct inst *in, enum instfield f, struct ynode *conf)
{
	const struct conf *c = &in->conf;
	struct ynode *v;
	size_t i;

	switch (f) {
	case INAME: return ynewstr(d, in->name);
	case IHOSTNAME: return ynewstr(d, guesthostname(in->name));
	case ISTATUS: return ynewstr(d, statename[in->state]);
	case IDIR: return ynewstr(d, in->dir);
	case IVMTYPE: return ynewstr(d, conf ? c->vmtype : "");
	case IARCH: return ynewstr(d, conf ? c->arch : "");
	case ICPUS: return ynewint(d, conf ? c->cpus : 0);
	case IMEMORY: return ynewint(d, conf ? c->memory : 0);
	case IDISK: return ynewint(d, conf ? c->disk : 0);
	case IMESSAGE: return ynewstr(d, in->message ? in->message : "");
	case ISSHPORT: return ynewint(d, in->sshport);
	case ISSHCONFIG: return ynewstr(d, conf ? keep("%s/ssh.config", in->dir) : "");
	case IAGENTPID: return ynewint(d, in->agent);
	case IDRIVERPID: return ynewint(d, in->driver);
	case IERRORS:
		v = ynewseq(d);
		for (i = 0; i < in->errs.n; i++)
			yappend(d, v, ynewstr(d, in->errs.v[i]));
		return v;
	case ICONFIG: return conf ? conf : ynewmap(d);
	case IADDDISKS: return (v = yget(conf, "additionalDisks")) ? v : ynewseq(d);
	case INETWORKS: return (v = yget(conf, "networks")) ? v : ynewseq(d);
	case IPARAM: return (v = yget(conf, "param")) ? v : ynewmap(d);
	case ISSHADDRESS: return ynewstr(d, conf ? "127.0.0.1" : "");
	case IPROTECTED: return ynewbool(d, in->protected);
	case IVERSION: return ynewstr(d, in->version);
	case IAUTOSTART: return ynewstr(d, "");
	case IHOSTOS: return ynewstr(d, "linux");
	case IHOSTARCH: return ynewstr(d, host.arch);
	case ILIMAHOME: return ynewstr(d, host.limahome);
	case IIDENTITY: return ynewstr(d, keep("%s/_config/user", host.limahome));
	case ISHARES: return conf ? instshares(d, c) : ynewmap(d);
	case NINSTFIELD: break;
	}
	return ynewnull(d);
}

/* The object: with the names and omissions of JSON, or with Go's names for a
 * template, and everything in it. */
static struct ynode *
insttree(struct ydoc *d, const struct inst *in, bool go)
{
	struct ynode *m = ynewmap(d), *conf = NULL, *v;
	int f;

	if (in->loaded) {
		conf = ynewmap(d);
		conftree(d, conf, confkeys, &in->conf);
	}
	for (f = 0; f < NINSTFIELD; f++) {
		v = instvalue(d, in, (enum instfield)f, conf);
		if (go || instfields[f].always || tttrue(v))
			(void)yput(d, m, go ? instfields[f].go : instfields[f].json, v);
	}
	return m;
}

/* Go's name of a key: an upper-case first letter, but for these. */
static const char *
goname(const char *key)
{
	static const char *const odd[][2] = {
		{ "vmType", "VMType" }, { "vmOpts", "VMOpts" }, { "os", "OS" }, { "cpuType", "CPUType" }, { "cpus", "CPUs" },
		{ "ssh", "SSH" }, { "dns", "DNS" }, { "tpm", "TPM" }, { "uid", "UID" }, { "url", "URL" }, { "vnc", "VNC" },
		{ "fsType", "FSType" }, { "fsArgs", "FSArgs" }, { "sshfs", "SSHFS" }, { "vzNAT", "VZNAT" }, { "macAddress", "MACAddress" },
		{ "binfmt", "BinFmt" }, { "caCerts", "CACertificates" }, { "timezone", "TimeZone" }, { "9p", "NineP" },
		{ "guest", "GuestFile" }, { "host", "HostFile" },
	};
	char *s;
	size_t i;

	for (i = 0; i < LEN(odd); i++)
		if (strcmp(odd[i][0], key) == 0)
			return odd[i][1];
	s = keep("%s", key);
	*s = (char)toupper((unsigned char)*s);
	return s;
}

/* A member of an instance in a template: Go's names of its keys, except below
 * the maps whose keys are the user's. */
static const struct ynode *
instmember(struct tt *t, const struct ynode *map, const char *name)
{
	static const char *const freemaps[] = { "vmOpts", "osOpts", "param", "Param", "env", "hosts", "cpuType" };
	const struct ynode *n;
	struct ynode *none;
	const struct key *k;

	if (map == t->root) {
		if ((n = yget(map, name)))
			return n;
		if (strcmp(name, "Instance") == 0)
			return map;
		ttfail(t, "can't evaluate field %s in type store.FormatData", name);
	}
	for (n = map; n && n != t->root; n = n->parent)
		if (n->key && oneof(n->key->s, freemaps, LEN(freemaps)))
			return yget(map, name);
	for (n = map->first; n; n = n->next)
		if (strcmp(goname(n->key->s), name) == 0)
			return n;
	/* a key nobody set is empty, a name that is none of a key is a mistake */
	for (k = confkeys; k->path; k++) {
		const char *key = keep("%.*s", (int)strcspn(k->path, "."), k->path);
		if (strcmp(goname(key), name) != 0)
			continue;
		if (k->path[strlen(key)] == '\0' && k->type < KRANGE)
			return ttstr(t, "");
		none = k->type == KSTRS || k->type == KLIST ? ynewseq(&t->d) : ynewmap(&t->d);
		none->key = ynewstr(&t->d, key);
		return none;
	}
	if (map->parent == t->root)
		ttfail(t, "can't evaluate field %s in type *limatype.LimaYAML", name);
	return ttstr(t, "");
}

/* Render the message of an instance; a template that is none makes it Broken. */
static void
instmessage(struct inst *in)
{
	struct tt t = { .name = "format", .member = instmember };
	const char *text = in->conf.message, *s = text;
	struct ydoc d = { 0 };

	if (!in->loaded || !text)
		return;
	if (strstr(text, "{{")) {
		t.root = insttree(&d, in, true);
		s = ttrender(&t, &perm, text);
		yfree(&d);
	}
	if (!s) {
		stradd(&in->errs, t.syntax ? keep("message %s is not a valid template: %s", bq(text), t.err) :
		    keep("cannot execute template %s: %s", bq(text), t.err));
		in->state = SBROKEN;
		return;
	}
	in->message = keep("%.*s", (int)strlen(s) - endswith(s, "\n"), s);
}

/* What the host agent last said is wrong: the last line of its events. */
static void
laststatus(struct inst *in)
{
	static char tail[8192];
	int fd = open(keep("%s/ha.stdout.log", in->dir), O_RDONLY|O_CLOEXEC|O_NOFOLLOW);
	const struct ynode *n = NULL;
	struct ydoc d = { 0 };
	struct stat st;
	ssize_t len = -1, i;

	if (fd >= 0 && fstat(fd, &st) == 0)
		len = pread(fd, tail, sizeof tail - 1, st.st_size < (off_t)sizeof tail ? 0 : st.st_size - (off_t)sizeof tail + 1);
	if (fd >= 0)
		close(fd);
	while (len > 0 && tail[len - 1] != '\n')        /* one that is being written */
		len--;
	for (i = --len; i > 0 && tail[i - 1] != '\n'; i--)
		;
	if (len > 0 && yparsejson(&d, tail + i, (size_t)(len - i)) == 0 && (n = ypath(d.root, "status.errors")) && n->kind == Y_SEQ)
		for (n = n->first; n; n = n->next)
			if (n->kind == Y_STR)
				stradd(&in->errs, keep("%s", n->s));
	yfree(&d);
}

/* What is known of an instance; -1 with ENOENT when it has no lima.yaml.  The
 * status comes from the two locks and nothing waits for a process. */
static int
inspect(struct inst *in, const char *name)
{
	struct buf b = { 0 };
	const char *path, *bad = badname(name);

	*in = (struct inst){ .name = name, .dir = instdir(name), .version = "" };
	/* neither .. nor ../x nor _config is an instance, whatever lies there */
	if (bad && (!isalnum((unsigned char)*name) || strchr(name, '/'))) {
		in->state = SBROKEN;
		stradd(&in->errs, bad);
		errno = EINVAL;
		return -1;
	}
	path = keep("%s/lima.yaml", in->dir);
	if (readfile(path, &b, templatemax) < 0) {
		int e = errno;
		in->state = SBROKEN;
		stradd(&in->errs, keep("open %s: %s", path, errtext(e)));
		errno = e;
		return -1;
	}
	confload(&in->conf, name, b.s, b.len, keep("main file %s", bq(path)), false);
	buffree(&b);
	if (in->conf.errs)
		stradd(&in->errs, keep("%s", in->conf.errs));
	in->loaded = !in->conf.errs;
	in->agent = lockholder(keep("%s/ha.pid", in->dir));
	in->driver = lockholder(keep("%s/qemu.pid", in->dir));
	in->state = !in->loaded ? SUNKNOWN : in->agent && in->driver ? SRUNNING :
	    in->agent || in->driver ? SBROKEN : SSTOPPED;
	if (in->loaded && in->agent && !in->driver)
		stradd(&in->errs, "host agent is running but driver is not");
	if (in->loaded && in->driver && !in->agent)
		stradd(&in->errs, keep("qemu driver is running but host agent is not (`limactl start %s` adopts it)", name));
	if (in->state == SRUNNING)
		laststatus(in);
	in->sshport = in->loaded && in->conf.sshport ? in->conf.sshport : 0;
	if (!in->sshport)
		in->sshport = portofconfig(in->dir);
	in->protected = faccessat(AT_FDCWD, keep("%s/protected", in->dir), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	in->version = in->conf.version ? in->conf.version : "";
	instmessage(in);
	return 0;
}

static int
strpcmp(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of all instances, sorted. */
static struct strs
allinstances(void)
{
	struct strs s = { 0 };
	struct dirent *d;
	struct stat st;
	DIR *dir = opendir(host.limahome);

	if (!dir && errno != ENOENT)            /* that is not the same as no instances */
		die("read %s:", host.limahome);
	while (dir && (d = readdir(dir))) {
		if (*d->d_name == '.' || *d->d_name == '_')
			continue;
		if (d->d_type != DT_DIR && (d->d_type != DT_UNKNOWN ||
		    fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)))
			continue;
		stradd(&s, keep("%s", d->d_name));
	}
	if (dir)
		closedir(dir);
	if (s.n)
		qsort(s.v, s.n, sizeof *s.v, strpcmp);
	return s;
}

/* ---- 13. Images --------------------------------------------------------- */

/* Each entry of `images` is a location: a path, file://, http(s)://, or
 * mmdebstrap:SUITE[,PACKAGE...].  Remote ones live in the cache under the names
 * of spec/runtime.md 1.3; built ones beside them.  An instance gets basedisk
 * (reflink, hard link or copy) and a qcow2 overlay `disk` on it. */

/* What stands at i of embeds, on perm, with a NUL behind it. */
static const unsigned char *
embedat(size_t i, size_t *len)
{
	static struct {
		const unsigned char *p;
		size_t len;
	} done[LEN(embeds)];

	if (!done[i].p)
		done[i].p = gunzip(embeds[i].data, embeds[i].len, &done[i].len);
	*len = done[i].len;
	return done[i].p;
}

/* NULL: it was not there when this binary was made. */
static const unsigned char *
embeddedmaybe(const char *name, size_t *len)
{
	size_t i;

	for (i = 0; i < LEN(embeds); i++)
		if (strcmp(embeds[i].name, name) == 0)
			return embedat(i, len);
	return NULL;
}

/* The guest agent for an instance's architecture; NULL: no compiler made one. */
static const unsigned char *
agentfor(const struct conf *c, size_t *len)
{
	return embeddedmaybe(keep("lima-guestagent.%s", c->arch), len);
}

static const unsigned char *
embedded(const char *name, size_t *len)
{
	const unsigned char *p = embeddedmaybe(name, len);

	if (p)
		return p;
	die("%s is not embedded in this binary; build it again with make", name);
}

/* A file in memory that holds an embedded script, to be run as
 * /proc/self/fd/3; the caller closes it. */
static int
embeddedfd(const char *name)
{
	size_t len;
	const unsigned char *p = embedded(name, &len);
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || writeall(fd, p, len) < 0)
		die("memfd_create %s:", name);
	return fd;
}

/* Why the file has not this digest; NULL when it has. */
static const char *
baddigest(const char *path, const char *digest)
{
	const char *why, *prog = digestprog(digest, &why), *hex;
	struct args a = { 0 };
	struct buf b = { 0 };
	int st;

	if (!prog)
		return keep("digest %s is invalid: %s", bq(digest), why);
	arg(&a, "%s", prog);
	arg(&a, "--");
	arg(&a, "%s", path);
	status("verifying %s", prog);
	st = runto(a.v, NULL, &b, -1);
	argsfree(&a);
	if (gotsig)
		die("interrupted");
	/* the output begins with \ when the file name had to be escaped */
	hex = b.s ? keep("%s", b.s + (*b.s == '\\')) : "";
	hex = keep("%.*s", (int)strcspn(hex, " \n"), hex);
	buffree(&b);
	if (st < 0)
		return keep("%s: not found in PATH; install coreutils", prog);
	if (st != 0 || strlen(hex) < 64)
		return keep("%s failed", prog);
	return strcmp(hex, strchr(digest, ':') + 1) == 0 ? NULL :
	    keep("expected digest %s, got `%.*s:%s`", bq(digest), (int)strcspn(digest, ":"), digest, hex);
}

/* Does the file have this digest?  Reports a mismatch; -1. */
static int
checkdigest(const char *path, const char *digest)
{
	const char *why = baddigest(path, digest);

	if (why)
		warn("%s (%s)", why, path);
	return why ? -1 : 0;
}

/* The same for a text; a mismatch ends the command. */
static void
needdigest(const char *text, const char *digest, const char *name)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	const char *why;

	if (fd < 0 || writeall(fd, text, strlen(text)) < 0)
		die("memfd_create:");
	if ((why = baddigest(keep("/proc/%ld/fd/%d", (long)getpid(), fd), digest)))
		die("%s: %s", name, why);
	close(fd);
}

/* The data of a file on the disk, so that a rename does not outrun it. */
static int
syncfile(const char *path)
{
	int fd = open(path, O_RDONLY|O_CLOEXEC), r;

	if (fd < 0)
		return -1;
	r = fsync(fd);
	close(fd);
	return r;
}

/* Why curl or wget ended so, and what is meant by it. */
static const char *
whyfetch(const char *prog, int st)
{
	static const struct { int curl, wget; const char *say; } t[] = {
		{ 1, -1, "it leads to an address that is neither http:// nor https://" },
		{ 6, -1, "the host's name does not resolve" }, { 7, -1, "cannot connect" },
		{ 18, -1, "the answer was cut" }, { 22, 8, "the server refuses" }, { 23, 3, "cannot write it to the disk" },
		{ 28, -1, "timed out" }, { 35, 5, "TLS failed" }, { 60, -1, "the server's certificate is not trusted" },
		{ 47, -1, "too many redirects" }, { -1, 4, "the network failed" },
	};
	size_t i;

	for (i = 0; st != -1 && WIFEXITED(st) && i < LEN(t); i++)
		if (WEXITSTATUS(st) == (*prog == 'c' ? t[i].curl : t[i].wget))
			return t[i].say;
	return keep("%s %s", prog, ended(st));
}

/* limactl takes proxies from variables of either case, curl and wget from the
 * lower one only. */
static void
proxyenv(void)
{
	static const char *const names[][2] = {
		{ "HTTP_PROXY", "http_proxy" }, { "HTTPS_PROXY", "https_proxy" },
		{ "ALL_PROXY", "all_proxy" }, { "NO_PROXY", "no_proxy" },
	};
	const char *v;
	size_t i;

	for (i = 0; i < LEN(names); i++)
		if ((v = getenv(names[i][0])) && *v)
			(void)setenv(names[i][1], v, 0);
}

/* ": 404" out of the last status line of such a file; "" when there is none. */
static const char *
httpstatus(const char *path)
{
	struct buf b = { 0 };
	const char *p, *code = "";

	(void)readfile(path, &b, 1 << 20);
	for (p = b.s; p && (p = strstr(p, "HTTP/")); p++)
		if ((p == b.s || p[-1] == '\n' || p[-1] == ' ') && *(p += strcspn(p, " \n")) == ' ')
			code = keep(": %.*s", (int)strspn(p + 1, "0123456789"), p + 1);
	buffree(&b);
	return code;
}

/* The last value of a header in a file of curl -D or wget -S, "" when absent. */
static const char *
header(const char *file, const char *name)
{
	struct buf b = { 0 };
	const char *val = "";
	char *p, *line;
	size_t n = strlen(name);

	if (readfile(file, &b, 1 << 20) == 0)
		for (p = b.s; (line = strsep(&p, "\n")); ) {
			line += strspn(line, " ");
			if (startswith(line, "HTTP/"))
				val = "";       /* of an answer that was redirected */
			else if (strncasecmp(line, name, n) == 0 && line[n] == ':')
				val = chomp(keep("%s", line + n + 1 + strspn(line + n + 1, " ")));
		}
	buffree(&b);
	return val;
}

struct download {
	const char *url, *what;         /* what: for messages */
	const char *part, *headers;     /* files */
	const char *since;              /* go on with part, when the server's file is still of this time; NULL: whatever it is */
};

/* How far a download is: a status line, and for logs a line now and then. */
static void
progress(const struct download *d)
{
	const char *range = strrchr(header(d->headers, "Content-Range"), '/');
	long long total, have;
	struct stat st;
	const char *text;

	if (stat(d->part, &st) < 0)
		return;
	have = (long long)st.st_size;
	if (parsenum(range ? range + 1 : header(d->headers, "Content-Length"), 1, LLONG_MAX, &total) < 0 || total < have)
		text = printsize(have);
	else
		text = keep("%s of %s (%lld%%)", printsize(have), printsize(total), have * 100 / total);
	if (msg.tty && !msg.json)
		status("Downloading %s: %s", d->what, text);
	else
		info("Downloading %s: %s", d->what, text);
}

/* Where the reason goes when a download may fail, for there is something else to
 * use; NULL: it is a warning. */
static const char **elsewhere;

/* Download with curl or wget, going on with what is there.  0; 1 when the server
 * does not go on; -1, reported. */
static int
fetch(const struct download *d)
{
	struct args a = { 0 };
	bool curl = findprog("curl") != NULL;
	struct job j = { .fd = { NOFD, NOFD, NOFD } };
	struct pollfd p = { .events = POLLIN };
	const char *why;
	int st, fd = -1;
	pid_t pid;

	if (!curl && !findprog("wget")) {
		warn("%s: neither curl nor wget found in PATH; install curl", d->url);
		return -1;
	}
	proxyenv();
	if (curl) {
		/* no --retry: it would also retry a name that does not resolve */
		argwords(&a, "curl -sfLg --proto-redir =http,https -C - --connect-timeout 15 --speed-limit 1 --speed-time 60 -D");
		arg(&a, "%s", d->headers);
		if (d->since && *d->since)
			argopt(&a, "-H", "If-Range: %s", d->since);
		arg(&a, "-o");
	} else {
		argwords(&a, "wget -nv -S -c -T 60 -t 1 -O");
		if ((fd = open(d->headers, O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0644)) < 0)
			die("create %s:", d->headers);
		j.fd[2] = fd;
	}
	arg(&a, "%s", d->part);
	arg(&a, "--");
	arg(&a, "%s", d->url);
	j.argv = a.v;
	pid = spawn(&j);
	if (fd >= 0)
		close(fd);
	p.fd = pid > 0 ? pidfdopen(pid) : -1;
	while (p.fd >= 0 && !gotsig && poll(&p, 1, msg.tty && !msg.json ? 300 : 20000) == 0)
		progress(d);
	if (p.fd >= 0)
		close(p.fd);
	st = pid < 0 ? -1 : waitchild(pid);
	if (gotsig)
		die("interrupted while downloading %s; the next try goes on where this one stopped", d->url);
	argsfree(&a);
	if (st == 0)
		return 0;
	/* 33: curl asked for the rest and got all, or something else */
	if (curl && st != -1 && WIFEXITED(st) && (WEXITSTATUS(st) == 33 ||
	    (WEXITSTATUS(st) == 22 && *header(d->headers, "Content-Range") == 'b')))
		return 1;
	why = whyfetch(curl ? "curl" : "wget", st);
	if (st != -1 && WEXITSTATUS(st) == (curl ? 22 : 8))
		why = keep("%s%s", why, httpstatus(d->headers));
	else if (st != -1 && WEXITSTATUS(st) == (curl ? 23 : 3))
		why = keep("%s: %s", why, d->part);
	if (elsewhere)
		*elsewhere = keep("%s: %s", d->url, why);
	else
		warn("failed to download %s: %s", bq(d->url), why);
	return -1;
}

/* The Last-Modified that a server says now; NULL when it cannot be asked. */
static const char *
lastmodified(const char *url, const char *headers)
{
	struct args a = { 0 };
	bool curl = findprog("curl") != NULL;
	int st, fd = NOFD;

	proxyenv();
	if (curl) {
		argwords(&a, "curl -sfLgI --proto-redir =http,https --connect-timeout 15 -m 30 -D");
		arg(&a, "%s", headers);
	} else {
		argwords(&a, "wget -nv -S --spider -T 30 -t 1");
		if ((fd = open(headers, O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0644)) < 0)
			return NULL;
	}
	arg(&a, "--");
	arg(&a, "%s", url);
	st = runto(a.v, NULL, NULL, fd);
	if (fd >= 0)
		close(fd);
	argsfree(&a);
	if (gotsig)
		die("interrupted");
	return st == 0 ? header(headers, "Last-Modified") : NULL;
}

/* A small text by http(s) appended to b, at most max bytes.  The HTTP status;
 * -1 when there is no whole answer (reported).  auth: an Authorization header
 * or NULL; it is told through a file, for everybody may read command lines. */
static int
httpget(const char *url, const char *auth, struct buf *b, size_t max)
{
	struct args a = { 0 };
	struct buf conf = { 0 };
	bool curl = findprog("curl") != NULL;
	struct job j = { .fd = { NOFD, -1, NOFD } };
	int p[2], st, code = -1, r;
	long long n;
	pid_t pid;
	char *nl;

	if (!curl && !findprog("wget")) {
		warn("%s: neither curl nor wget found in PATH; install curl", url);
		return -1;
	}
	proxyenv();
	argwords(&a, curl ? "curl -sLg -m 120 --connect-timeout 15 --proto-redir =http,https -w \n%{http_code} -K /proc/self/fd/3 --" :
	    "wget -q -T 60 -t 1 --config=/proc/self/fd/3 -O - --");
	arg(&a, "%s", url);
	if (auth)
		bufprintf(&conf, curl ? "header = \"Authorization: %s\"\n" : "header = Authorization: %s\n", auth);
	if ((j.pass = memfd_create("config", MFD_CLOEXEC)) < 0 || writeall(j.pass, conf.s ? conf.s : "", conf.len) < 0 ||
	    lseek(j.pass, 0, SEEK_SET) < 0 || cloexecpipe(p) < 0)
		die("memfd_create:");
	j.argv = a.v;
	j.fd[1] = p[1];
	pid = spawn(&j);
	close(p[1]);
	close(j.pass);
	r = pid > 0 ? readall(p[0], b, max + 16) : 0;
	close(p[0]);            /* it may still write */
	st = pid < 0 ? -1 : waitchild(pid);
	if (gotsig)
		die("interrupted");
	if (r < 0)
		warn("failed to read %s: it is larger than %s", bq(url), printsize((long long)max));
	else if (!curl && st != -1 && WIFEXITED(st) && (WEXITSTATUS(st) == 0 || WEXITSTATUS(st) == 8))
		code = WEXITSTATUS(st) ? 404 : 200;     /* wget does not tell which error */
	else if (st != 0)
		warn("failed to read %s: %s", bq(url), whyfetch(a.v[0], st));
	else if ((nl = memrchr(b->s, '\n', b->len)) && parsenum(nl + 1, 100, 999, &n) == 0) {
		b->len = (size_t)(nl - b->s);   /* -w put it behind the text */
		*nl = '\0';
		code = (int)n;
	}
	argsfree(&a);
	buffree(&conf);
	return code;
}

/* The lock of a directory of the cache, or of a file beside one.  Made when it
 * is missing, and again when prune took it away while we waited. */
static int
lockcache(const char *path, int flags, const char *what)
{
	struct stat a, b;
	int fd;

	for (;;) {
		if ((flags & O_DIRECTORY) && mkdirs(path, 0700) < 0)
			die("create the cache directory %s:", path);
		if ((fd = lockfile(path, flags, what)) < 0) {
			if (gotsig)
				die("interrupted");
			if (errno == ENOENT && (flags & O_DIRECTORY))
				continue;
			die("lock %s:", path);
		}
		if (fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev)
			return fd;
		close(fd);
	}
}

/* May the data of a cache directory be used without another download?  Without
 * a digest the server is asked whether it has a newer one.  dfile: where the
 * digest is remembered, NULL without one. */
static bool
cachefresh(const char *dir, const char *url, const char *digest, const char *dfile)
{
	const char *data = keep("%s/data", dir), *known, *had, *has;

	if (dfile && (known = readline1(dfile))) {
		if (strcmp(known, digest) != 0)
			warn("expected digest %s, got %s (%s)", bq(digest), bq(known), data);
		return true;            /* right or wrong, it is what that server has */
	}
	had = readline1(keep("%s/time", dir));
	if (!(has = lastmodified(url, keep("%s/headers.tmp", dir)))) {
		info("Failed to retrieve last-modified for cached digest-less image; using cached image.");
		return true;
	}
	if (had && *had && strcmp(had, has) == 0)
		return true;
	info("Re-downloading digest-less image: last-modified mismatch (cached: %s, server: %s)", had ? had : "", has);
	return false;
}

/* What was verified of data is not so of what takes its place. */
static void
dropdigests(const char *dir)
{
	static const char *const algos[] = { "sha256", "sha384", "sha512" };
	size_t i;

	for (i = 0; i < LEN(algos); i++)
		(void)unlink(keep("%s/%s.digest", dir, algos[i]));
}

/* The cached file of a URL, fetched when it is not there.  NULL when it cannot
 * be had (reported).  A digest is verified before the file gets its name, and
 * remembered, so that it costs nothing the next time. */
static const char *
cached(const char *url, const char *digest, const char *what)
{
	const char *dir = keep("%s/download/by-url-sha256/%s", cachedir(), hashhex(url, 32));
	const char *data = keep("%s/data", dir), *dfile = NULL, *known, *changed, *type, *ret = NULL;
	const char *base = strrchr(url, '/') ? strrchr(url, '/') + 1 : url;
	struct download d = { url, keep("%s (%s)", what, base), keep("%s/data.part", dir), keep("%s/headers.tmp", dir), NULL };
	bool had = access(data, F_OK) == 0;
	int lock = lockcache(dir, O_RDONLY|O_DIRECTORY, base), got;

	if (digest)
		dfile = keep("%s/%.*s.digest", dir, (int)strcspn(digest, ":"), digest);
	/* what came while we waited for the lock is fresh */
	if (access(data, F_OK) == 0 && (!had || cachefresh(dir, url, digest, dfile))) {
		known = dfile ? readline1(dfile) : NULL;
		if (!digest || (known ? strcmp(known, digest) == 0 : checkdigest(data, digest) == 0 &&
		    writefile(dfile, digest, strlen(digest), 0644) == 0)) {
			info("Using cache %s", bq(data));
			ret = data;
		}
		close(lock);
		return ret;
	}
	if (!elsewhere)
		info("Downloading %s", d.what);
	/* a part goes on when a digest, or the server, will tell a new file from the old */
	d.since = header(d.headers, "Last-Modified");
	if (!digest && (!*d.since || !findprog("curl")))        /* wget cannot ask for that */
		(void)unlink(d.part);
	if ((got = fetch(&d)) > 0 && unlink(d.part) == 0) {
		d.since = NULL;
		got = fetch(&d);
	}
	if (got > 0)
		warn("failed to download %s: the server's answer makes no sense", bq(url));
	if (got == 0) {
		changed = header(d.headers, "Last-Modified");
		type = header(d.headers, "Content-Type");
		if (digest && checkdigest(d.part, digest) < 0)
			(void)unlink(d.part);   /* a resume would only complete the wrong file */
		else if (!digest && startswith(type, "text/html")) {
			warn("failed to download %s: the server sent a web page", bq(url));
			(void)unlink(d.part);
		} else if (syncfile(d.part) < 0)
			warn("fsync %s:", d.part);
		else if (dropdigests(dir), rename(d.part, data) < 0)
			warn("rename %s:", d.part);
		else if (writefile(keep("%s/url", dir), url, strlen(url), 0644) == 0 &&
		    writefile(keep("%s/time", dir), changed, strlen(changed), 0644) == 0 &&
		    writefile(keep("%s/type", dir), type, strlen(type), 0644) == 0 &&
		    (!digest || writefile(dfile, digest, strlen(digest), 0644) == 0)) {
			info("Downloaded %s from %s", what, bq(url));
			ret = data;
		}
		(void)unlink(d.headers);
	}
	close(lock);
	return ret;
}

/* Show the stages a build prints, a line each; its log goes to logfd. */
static int
buildstages(char *const argv[], int script, int logfd, const char *what)
{
	struct job j = { .argv = argv, .fd = { NOFD, -1, logfd }, .pass = script };
	char line[256];
	int p[2];
	pid_t pid;
	FILE *f;

	if (cloexecpipe(p) < 0)
		die("pipe:");
	j.fd[1] = p[1];
	pid = spawn(&j);
	close(p[1]);
	if (pid < 0)
		die("run sh:");
	if (!(f = fdopen(p[0], "r")))
		die("fdopen:");
	while (fgets(line, sizeof line, f)) {
		if (msg.tty)
			status("building %s: %s", what, chomp(line));
		else
			info("Building %s: %s", what, chomp(line));
	}
	fclose(f);
	return waitchild(pid);
}

/* Say the last lines of a text, which is cut up, made fit for a terminal. */
static void
saytail(char *text, int lines, void (*say)(const char *, ...), const char *prefix)
{
	struct buf out = { 0 };
	char *p, *line;
	int n = 0;

	chomp(text);
	for (p = text + strlen(text); p > text && n < lines; p--)
		n += p[-1] == '\n';
	for (p += p > text; (line = strsep(&p, "\n")); ) {
		out.len = 0;
		chomp(line);            /* of the console's \r */
		bufsafe(&out, line, strlen(line));
		if (out.len)
			say("%s%s", prefix, out.s);
	}
	buffree(&out);
}

static void
showtail(const char *path, int lines, const char *prefix)
{
	struct buf b = { 0 };
	struct stat st;
	int fd = open(path, O_RDONLY|O_CLOEXEC);

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size > 16384)
		(void)lseek(fd, -16384, SEEK_END);
	if (readall(fd, &b, 1 << 20) == 0)
		saytail(b.s, lines, info, prefix);
	close(fd);
	buffree(&b);
}

/* The guest's fixed address, which is part of a built image. */
static const char *
guestip(void)
{
	return keep("%s%s", slirpaddress, strchr(slirpnet, '/'));
}

/* The name in the cache of mmdebstrap:SPEC. */
static const char *
buildkey(const char *spec, const char *arch)
{
	size_t len;
	const unsigned char *script = embedded("mkimage.sh", &len);

	return hashhex(keep("%s %s %s %s %s %s", spec, arch, guestip(), slirpgateway, slirpdns,
	    hashhex(keep("%.*s", (int)len, (const char *)script), 32)), 12);
}

/* The directory of a guest built by guest/mkimage.sh, made when it is not in
 * the cache: disk, kernel, initrd, cmdline.  NULL when it cannot be built. */
static const char *
built(const char *spec, const char *arch)
{
	const char *ip = guestip(), *key = buildkey(spec, arch);
	const char *top = keep("%s/mmdebstrap", cachedir()), *dir = keep("%s/%s", top, key);
	const char *tmp = keep("%s.tmp", dir), *logfile = keep("%s/build.log", tmp);
	struct args a = { 0 };
	char *list = keep("%s", spec), *w;
	struct statvfs vfs;
	int lock, fd, logfd, st;

	if (mkdirs(top, 0700) < 0)
		die("create the cache directory %s:", top);
	lock = lockcache(keep("%s.lock", dir), O_RDWR|O_CREAT, keep("building %s", spec));
	if (access(dir, F_OK) == 0) {
		info("Using cache %s", bq(dir));
		close(lock);
		return dir;
	}
	if (statvfs(top, &vfs) == 0 && (long long)vfs.f_bavail * (long long)vfs.f_frsize < buildspace) {
		warn("not enough space to build mmdebstrap:%s: %s has %s free, %s are needed", spec, top,
		    printsize((long long)vfs.f_bavail * (long long)vfs.f_frsize), printsize(buildspace));
		close(lock);
		return NULL;
	}
	if (rmtree(tmp) < 0 || mkdir(tmp, 0700) < 0)    /* a dead process may have left one */
		die("create %s:", tmp);
	scratchadd(tmp);
	if ((logfd = open(logfile, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC|O_APPEND, 0644)) < 0)
		die("create %s:", logfile);
	fd = embeddedfd("mkimage.sh");
	if (setenv("LIMA_IP", ip, 1) < 0 || setenv("LIMA_GATEWAY", slirpgateway, 1) < 0 || setenv("LIMA_DNS", slirpdns, 1) < 0)
		die("setenv:");
	arg(&a, "sh");
	arg(&a, "/proc/self/fd/3");
	w = strsep(&list, ",");
	arg(&a, "%s", w);
	arg(&a, "%s", arch);
	arg(&a, "%s", tmp);
	while ((w = strsep(&list, ",")))
		arg(&a, "%s", w);
	info("Building the image mmdebstrap:%s (%s) out of packages", spec, arch);
	st = buildstages(a.v, fd, logfd, spec);
	argsfree(&a);
	close(fd);
	close(logfd);
	if (gotsig)
		die("interrupted while building mmdebstrap:%s", spec);
	if (st != 0) {
		showtail(logfile, 8, "mkimage: ");
		warn("failed to build mmdebstrap:%s (sh %s)", spec, ended(st));
		if (rmtree(tmp) < 0)
			warn("remove %s:", tmp);
		scratchdrop();
		close(lock);
		return NULL;
	}
	if (rename(tmp, dir) < 0)
		die("rename %s:", tmp);
	scratchdrop();
	close(lock);
	return dir;
}

static uint64_t
getbe64(const unsigned char *p)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static uint32_t
getbe32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Look at the first bytes of a qcow2 file (docs/interop/qcow2.txt).  One that
 * names another file is refused, for the guest could read that file.  NULL, or
 * what is wrong; the size is told in most cases of that too. */
static const char *
qcow2header(const unsigned char *h, size_t n, long long *size)
{
	uint32_t version;

	if (n < 72)
		return "has a cut qcow2 header";
	version = getbe32(h + 4);
	if (version < 2 || version > 3)
		return "has an unknown qcow2 version";
	if (version == 3 && n < 104)
		return "has a cut qcow2 header";
	*size = (long long)getbe64(h + 24);
	if (getbe64(h + 8) != 0 || getbe32(h + 16) != 0)
		return "has a backing file; flatten it with `qemu-img convert`";
	if (version == 3 && (h[79] & 4))
		return "has an external data file; flatten it with `qemu-img convert`";
	if (version == 3 && (h[79] & 2))
		return "is marked as corrupt; look at it with `qemu-img check`";
	if (getbe32(h + 32) != 0)
		return "is encrypted; decrypt it with `qemu-img convert`";
	if (getbe32(h + 20) < 9 || getbe32(h + 20) > 21)
		return "has an impossible cluster size";
	if (getbe64(h + 24) > 1ULL << 50)
		return "claims an absurd size";
	return NULL;
}

/* Look at an image before QEMU does: its format, qcow2, raw or iso, and virtual
 * size.  NULL, or what is wrong. */
static const char *
imageformat(const char *path, const char **fmt, long long *size)
{
	static const struct { size_t at, n; const char *magic, *name; } others[] = {
		{ 0, 4, "KDMV", "vmdk" }, { 0, 4, "COWD", "vmdk" }, { 0, 21, "# Disk DescriptorFile", "vmdk" },
		{ 0, 8, "vhdxfile", "vhdx" }, { 0, 8, "conectix", "vpc" }, { 64, 4, "\x7f\x10\xda\xbe", "vdi" },
		{ 0, 4, "QED", "qed" }, { 0, 16, "WithoutFreeSpace", "parallels" }, { 0, 16, "WithouFreSpacExt", "parallels" },
	};
	unsigned char h[104] = { 0 };
	const char *why;
	char cd[6] = "";
	struct stat st;
	ssize_t n;
	size_t i;
	int fd = open(path, O_RDONLY|O_CLOEXEC|O_NOCTTY);

	if (fd < 0)
		return keep("open %s: %s", path, errtext(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (n = pread(fd, h, sizeof h, 0)) < 0) {
		close(fd);
		return keep("%s is not a readable regular file", path);
	}
	if (pread(fd, cd, 5, 32769) != 5)       /* ECMA-119 8.1.2: the volume descriptor's identifier */
		*cd = '\0';
	close(fd);
	*fmt = strcmp(cd, "CD001") == 0 ? "iso" : "raw";
	*size = (long long)st.st_size;
	if (n >= 4 && memcmp(h, "QFI\xfb", 4) == 0) {
		*fmt = "qcow2";
		return (why = qcow2header(h, (size_t)n, size)) ? keep("%s %s", path, why) : NULL;
	}
	for (i = 0; i < LEN(others); i++)
		if ((size_t)n >= others[i].at + others[i].n && memcmp(h + others[i].at, others[i].magic, others[i].n) == 0)
			return keep("%s is a %s image, neither raw nor qcow2; make one with `qemu-img convert -O qcow2`",
			    path, others[i].name);
	return NULL;
}

/* Decompress src into dst by the suffix of the location or the first bytes; 0
 * when done, 1 when src is not compressed, -1 when it is spoilt, -2 without the
 * program (reported). */
static int
decompress(const char *src, const char *location, const char *dst)
{
	static const struct { const char *suffix, *magic, *prog; size_t n; } t[] = {
		{ ".gz", "\x1f\x8b", "gzip", 2 }, { ".bz2", "BZ", "bzip2", 2 },
		{ ".xz", "\xfd" "7zXZ", "xz", 6 }, { ".zst", "\x28\xb5\x2f\xfd", "zstd", 4 },
	};
	char head[6] = "";
	struct args a = { 0 };
	const char *p;
	struct job j = { .fd = { -1, -1, memfd_create("stderr", MFD_CLOEXEC) } };
	struct buf b = { 0 };
	size_t i;
	pid_t pid;
	int in = open(src, O_RDONLY|O_CLOEXEC), out, st;

	if (in < 0 || pread(in, head, sizeof head, 0) < 0)
		return warn("read %s:", src), -1;
	for (i = 0; i < LEN(t) && !endswith(location, t[i].suffix) && memcmp(head, t[i].magic, t[i].n) != 0; i++)
		;
	if (i == LEN(t)) {
		close(j.fd[2]);
		close(in);
		return 1;
	}
	if ((out = open(dst, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0644)) < 0)
		die("create %s:", dst);
	arg(&a, "%s", t[i].prog);
	arg(&a, "-dc");
	j.argv = a.v;
	j.fd[0] = in;
	j.fd[1] = out;
	status("decompressing %s", location);
	pid = spawn(&j);
	if (pid < 0)
		warn("%s: not found in PATH; install it to decompress %s", t[i].prog, location);
	st = pid < 0 ? -1 : waitchild(pid);
	if (pid > 0 && st != 0) {
		(void)lseek(j.fd[2], 0, SEEK_SET);
		(void)readall(j.fd[2], &b, 1 << 16);
		p = b.s ? chomp(b.s) + strspn(b.s, "\n") : "";
		warn("%s failed on %s: %s", t[i].prog, src, *p ? keep("%.*s", (int)strcspn(p, "\n"), p) : ended(st));
		buffree(&b);
	}
	argsfree(&a);
	close(j.fd[2]);
	close(in);
	if (close(out) < 0 || st != 0) {
		(void)unlink(dst);
		return pid < 0 ? -2 : -1;
	}
	return 0;
}

/* A path of the host for a location: ~ expanded, file:// cut. */
static const char *
localpath(const char *loc)
{
	return startswith(loc, "file://") ? loc + strlen("file://") : tilde(loc);
}

/* Bring one file of an image entry to dst.  -1 when it cannot be had. */
static int
bring(const char *loc, const char *digest, const char *dst, const char *what, bool unpack)
{
	const char *src;
	bool remote = startswith(loc, "http://") || startswith(loc, "https://");
	int r;

	if (!remote && strstr(loc, "://") && !startswith(loc, "file://")) {
		warn("%s: unknown kind of location (path, file://, http://, https:// or mmdebstrap:SUITE)", bq(loc));
		return -1;
	}
	src = remote ? cached(loc, digest, what) : localpath(loc);
	if (!src)
		return -1;
	if (startswith(loc, "file://") && *src != '/') {
		warn("file URL %s is not an absolute path", bq(loc));
		return -1;
	}
	if (!remote && access(src, R_OK) < 0) {
		warn("%s: %s:", what, src);
		return -1;
	}
	if (!remote && digest && checkdigest(src, digest) < 0)
		return -1;
	(void)unlink(dst);
	r = unpack ? decompress(src, loc, dst) : 1;
	if (r == 1 && (r = clonefile(src, dst, remote)) < 0)
		die("copy %s to %s:", src, dst);
	if (gotsig)
		die("interrupted");
	if (r == -1 && remote && !digest)       /* nothing else would ever replace it */
		(void)unlink(src);
	return r;
}

/* What an image gives an instance, and what a build calls it.  The first is named
 * basedisk when all are there: a killed start leaves nothing that looks whole. */
#define HALFDISK "basedisk.tmp"
static const char *const imagefiles[] = { HALFDISK, "kernel", "initrd", "kernel.cmdline" };
static const char *const builtfiles[] = { "disk", "kernel", "initrd", "cmdline" };

/* All files of an image entry into dir; -1 when one is missing. */
static int
bringimage(const struct image *im, const char *arch, const char *dir)
{
	const char *b, *why, *fmt;
	long long size;
	size_t i;

	if (startswith(im->location, "mmdebstrap:")) {
		if (!(b = built(im->location + strlen("mmdebstrap:"), arch)))
			return -1;
		for (i = 0; i < LEN(imagefiles); i++)
			if (clonefile(keep("%s/%s", b, builtfiles[i]), keep("%s/%s", dir, imagefiles[i]), true) < 0)
				die("copy %s/%s to %s/%s:", b, builtfiles[i], dir, imagefiles[i]);
		return 0;
	}
	if (bring(im->location, im->digest, keep("%s/" HALFDISK, dir), "the image", true) < 0)
		return -1;
	if (!(why = imageformat(keep("%s/" HALFDISK, dir), &fmt, &size)) && size < 512)
		why = keep("%lld bytes are no disk image", size);
	if (why) {                      /* it names our copy */
		warn("%s: %s", im->location, why + (startswith(why, dir) ? strlen(dir) + strlen("/" HALFDISK " ") : 0));
		return -1;
	}
	if (im->kernel && bring(im->kernel, im->kerneldigest, keep("%s/kernel", dir), "the kernel", true) < 0)
		return -1;
	if (im->initrd && bring(im->initrd, im->initrddigest, keep("%s/initrd", dir), "the initrd", false) < 0)
		return -1;
	return im->cmdline ? writefile(keep("%s/kernel.cmdline", dir), im->cmdline, strlen(im->cmdline), 0644) : 0;
}

/* Fill dir/basedisk (and kernel ...) from the first image that can be had. */
static void
prepareimage(const struct conf *c, const char *dir)
{
	const struct image *im = c->images.v;
	const char *variant = NULL, *half = keep("%s/" HALFDISK, dir);
	size_t i, k, tried = 0;

	for (i = 0; i < c->images.n; i++) {
		const char *arch = im[i].arch ? im[i].arch : c->arch;
		struct field f[] = {
			{ "arch", arch }, { "digest", im[i].digest ? im[i].digest : "" },
			{ "location", im[i].location }, { NULL, NULL },
		};
		if (strcmp(arch, c->arch) != 0)
			continue;
		if (!variant)
			variant = im[i].variant ? im[i].variant : "";
		if (strcmp(im[i].variant ? im[i].variant : "", variant) != 0)
			continue;
		tried++;
		if (gotsig)
			die("interrupted");
		logline(INFO, f, "Attempting to download the image");
		/* half of one entry, or of a start that was killed, must not meet half of the next */
		for (k = 0; k < LEN(imagefiles); k++)
			(void)unlink(keep("%s/%s", dir, imagefiles[k]));
		if (bringimage(&im[i], c->arch, dir) < 0)
			continue;
		if (syncfile(half) < 0 || rename(half, keep("%s/basedisk", dir)) < 0)
			die("rename %s:", half);
		return;
	}
	if (!tried)
		die("no image of arch %s is configured: add one to `images`", bq(c->arch));
	die("none of the %zu images for %s can be had (the lines above say why); name another one in `images`", tried, c->arch);
}

/* A new qcow2 file `disk` in dir, an overlay of base when there is one; whole or
 * not at all. */
static void
makedisk(const char *dir, const char *base, const char *fmt, long long size)
{
	struct args a = { 0 };

	argwords(&a, "qemu-img create -q -f qcow2");
	if (base) {
		argopt(&a, "-F", "%s", fmt);
		argopt(&a, "-b", "%s", base);
	}
	arg(&a, "disk.tmp");
	arg(&a, "%lld", size);
	runordie(a.v, dir, "qemu-utils (qemu-img)");
	if (rename(keep("%s/disk.tmp", dir), keep("%s/disk", dir)) < 0)
		die("rename %s/disk.tmp:", dir);
	argsfree(&a);
}

static void
resizedisk(const char *dir, const char *file, const char *fmt, long long size)
{
	struct args a = { 0 };

	argwords(&a, "qemu-img resize -q -f");
	arg(&a, "%s", fmt);
	arg(&a, "%s", file);
	arg(&a, "%lld", size);
	runordie(a.v, dir, "qemu-utils (qemu-img)");
	argsfree(&a);
}

/* Firmware that the configuration names, as qemu-efi-code.fd; one that is there
 * stays.  Without any that can be had the system's own serves. */
static void
preparefirmware(const struct conf *c, const char *dir)
{
	const struct image *im = c->firmware.v;
	const char *dst = keep("%s/qemu-efi-code.fd", dir);
	size_t i;

	for (i = 0; !c->legacybios && i < c->firmware.n && access(dst, F_OK) < 0; i++)
		if (im[i].location && (!im[i].arch || strcmp(im[i].arch, c->arch) == 0) &&
		    (!im[i].vmtype || !*im[i].vmtype || strcmp(im[i].vmtype, "qemu") == 0))
			(void)bring(im[i].location, im[i].digest, dst, "UEFI code", true);
}

/* The archive of containerd and nerdctl for an instance in the making.  Without
 * one that can be had the packages of the guest serve, which takes one line. */
static void
prepareengine(const struct conf *c, const char *dir)
{
	const struct image *im = c->archives.v;
	const char *why = NULL;
	bool got = false;
	size_t i;

	if (c->containerduser <= 0 && c->containerdsystem <= 0)
		return;
	elsewhere = &why;
	for (i = 0; i < c->archives.n && !got; i++)
		got = im[i].location && (!im[i].arch || strcmp(im[i].arch, c->arch) == 0) &&
		    bring(im[i].location, im[i].digest, keep("%s/nerdctl-full.tgz", dir), "the containerd archive", false) == 0;
	elsewhere = NULL;
	if (!got)
		info("containerd will be that of the guest's packages, without nerdctl: no archive can be had%s%s%s",
		    why ? " (" : "", why ? why : "", why ? ")" : "");
}

/* limactl before 2.1 had other names: diffdisk, and basedisk for a CD. */
static void
legacynames(const char *dir, const char *disk, const char *base, const char *iso)
{
	const char *fmt = "";
	long long size;

	if (access(keep("%s/diffdisk", dir), F_OK) < 0)
		return;
	if (access(disk, F_OK) < 0 && symlink("diffdisk", disk) < 0)
		die("link %s to diffdisk:", disk);
	if (access(iso, F_OK) < 0 && access(base, F_OK) == 0 && !imageformat(base, &fmt, &size) &&
	    strcmp(fmt, "iso") == 0 && symlink("basedisk", iso) < 0)
		die("link %s to basedisk:", iso);
}

/* The format of the disk, and its size.  Without a basedisk it is limactl's and may
 * be raw: then its first bytes are the guest's, and must not name a file of ours. */
static const char *
diskformat(const char *dir, long long *size)
{
	const char *fmt = "qcow2", *why = imageformat(keep("%s/disk", dir), &fmt, size);

	if (why && access(keep("%s/basedisk", dir), F_OK) < 0)
		die("%s/disk has a qcow2 header that is refused, and its guest may have written it (hint: `qemu-img info` shows it)", dir);
	return fmt;
}

/* Make what a start needs and is not there: basedisk or iso, disk, its size. */
static void
preparedisk(const struct conf *c, const char *dir)
{
	const char *disk = keep("%s/disk", dir), *base = keep("%s/basedisk", dir), *iso = keep("%s/iso", dir);
	const char *fmt = "raw", *why;
	long long size = 0;

	preparefirmware(c, dir);
	legacynames(dir, disk, base, iso);
	if (access(disk, F_OK) < 0) {
		if (access(base, F_OK) < 0 && access(iso, F_OK) < 0)
			prepareimage(c, dir);
		if (access(base, F_OK) == 0) {
			if ((why = imageformat(base, &fmt, &size)))
				die("%s", why);
			if (strcmp(fmt, "iso") == 0 && rename(base, iso) < 0)
				die("rename %s to %s:", base, iso);
		}
		if (access(iso, F_OK) == 0) {   /* boots from there, with an empty disk beside it */
			makedisk(dir, NULL, NULL, c->disk);
			return;
		}
		if (c->disk < size)
			die("disk shrinking is not supported: the image has %s, `disk` says %s", printsize(size), printsize(c->disk));
		if (c->disk != size)
			info("Resize instance %s's disk from %s to %s", c->name, printsize(size), printsize(c->disk));
		makedisk(dir, "basedisk", fmt, c->disk);
		return;
	}
	fmt = diskformat(dir, &size);
	if (size == c->disk)
		return;
	if (size > c->disk)
		die("disk shrinking is not supported: %s has %s, `disk` says %s", disk, printsize(size), printsize(c->disk));
	info("Resize instance %s's disk from %s to %s", c->name, printsize(size), printsize(c->disk));
	resizedisk(dir, "disk", fmt, c->disk);
}

/* The names in the cache of all that a tree names; they are to be kept. */
static void
referred(struct strs *keepers, const struct ynode *n)
{
	size_t i;

	for (; n; n = n->next) {
		referred(keepers, n->first);
		if (!n->s || n->kind != Y_STR)
			continue;
		if (startswith(n->s, "http://") || startswith(n->s, "https://"))
			stradd(keepers, hashhex(n->s, 32));
		for (i = 0; startswith(n->s, "mmdebstrap:") && i < LEN(archs); i++)
			stradd(keepers, buildkey(n->s + strlen("mmdebstrap:"), archs[i].name));
	}
}

/* The same for a text, and for the bases it names by their path; those named
 * by template: and those beside a template are templates themselves. */
static void
referredtext(struct strs *keepers, const char *text, size_t len, int depth)
{
	struct ydoc d = { 0 };
	struct buf b = { 0 };
	const struct ynode *base, *v;
	const char *loc;

	if (yparse(&d, text, len) == 0) {
		referred(keepers, d.root);
		base = yget(d.root, "base");
		for (v = base && base->kind == Y_SEQ ? base->first : base; v; v = v == base ? NULL : v->next) {
			const struct ynode *n = v->kind == Y_MAP ? yget(v, "url") : v;
			loc = n && n->kind == Y_STR ? tilde(n->s) : "";
			b.len = 0;
			if (depth < 32 && *loc == '/' && readfile(loc, &b, templatemax) == 0)
				referredtext(keepers, b.s, b.len, depth + 1);
		}
		buffree(&b);
	}
	yfree(&d);
}

/* Remove the entries of a directory of the cache that are not to be kept and
 * that nobody works on.  False when one stays. */
static bool
prunedir(const char *dir, const struct strs *keepers, bool locksbeside)
{
	DIR *dp = opendir(dir);
	struct dirent *d;
	const char *path, *name;
	bool all = true;
	int lock;

	while (dp && (d = readdir(dp))) {
		if (*d->d_name == '.' || endswith(d->d_name, ".lock"))
			continue;
		name = keep("%.*s", (int)strcspn(d->d_name, "."), d->d_name);
		path = keep("%s/%s", dir, d->d_name);
		lock = open(locksbeside ? keep("%s/%s.lock", dir, name) : path, O_RDONLY|O_CLOEXEC);
		if (lock >= 0 && flock(lock, LOCK_EX|LOCK_NB) < 0) {
			info("Keeping %s, which another limactl is working on", bq(path));
			all = false;
		} else if (oneof(name, keepers->v, keepers->n) && strcmp(name, d->d_name) == 0) {
			(void)unlink(keep("%s/data.part", path));
			(void)unlink(keep("%s/headers.tmp", path));
			all = false;
		} else if (rmtree(path) < 0 && unlink(path) < 0)
			die("remove %s:", path);
		if (lock >= 0)
			close(lock);
	}
	if (dp)
		closedir(dp);
	return all;
}

/* ---- 14. Template locators ---------------------------------------------- */

/* A template as it was found: text, and the name an instance of it gets. */
struct template {
	const char *text, *name;
	const char *from;               /* the locator it was read from in the end */
};

/* PREFIX/share/lima; NULL when it holds nothing. */
static const char *
sharedir(const char *prefix)
{
	const char *dir = keep("%s/share/lima", prefix ? prefix : "");
	DIR *dp = prefix ? opendir(dir) : NULL;
	int n = 0;

	while (dp && readdir(dp))
		n++;            /* . and .. are always there */
	if (dp)
		closedir(dp);
	return n > 2 ? dir : NULL;
}

/* Where template files are looked for, in order.  LIMA_TEMPLATES_PATH stands
 * for all places, those inside the program included. */
static struct strs
templatedirs(bool *inside)
{
	const char *path = envor("LIMA_TEMPLATES_PATH", NULL), *a, *b, *end;
	struct strs s = { 0 };

	*inside = !path;
	s.v = yalloc(&perm, ((*inside ? 0 : strlen(path)) + 4) * sizeof *s.v);
	for (; !*inside && path; path = *end ? end + 1 : NULL) {
		end = path + strcspn(path, ":");
		if (end > path)
			s.v[s.n++] = keep("%.*s", (int)(end - path), path);
	}
	if (!*inside)
		return s;
	s.v[s.n++] = keep("%s/_templates", host.limahome);
	if ((a = sharedir(parentdir(owndir(0)))))
		s.v[s.n++] = keep("%s/templates", a);
	if ((b = sharedir(parentdir(owndir(1)))) && (!a || strcmp(a, b) != 0))
		s.v[s.n++] = keep("%s/templates", b);
	return s;
}

/* An entry of `images` for one architecture. */
static void
tableimage(struct buf *b, const char *url, const char *variant, const struct arch *ar, const char *digest)
{
	bufputs(b, "- location: \"");
	for (; *url; url++)
		if (*url == '@')
			bufputs(b, ar->name);
		else if (*url == '%')
			bufputs(b, ar->other);
		else
			bufputc(b, *url);
	bufprintf(b, "\"\n  arch: \"%s\"\n", ar->name);
	if (digest)
		bufprintf(b, "  digest: \"%s\"\n", digest);
	if (*variant)
		bufprintf(b, "  variant: \"%s\"\n", variant);
}

/* The template of a release, made out of the table templates/images; NULL when
 * there is none of that name.  packages: for the image that is built, "" for none. */
static const char *
tabletext(const char *name, const char *packages)
{
	size_t len, i;
	const unsigned char *data = embedded("templates/images", &len);
	char *table = keep("%.*s", (int)len, (const char *)data), *line, *w, *next, *url = NULL;
	const char *variant = "", *unsupported = NULL, *build = NULL;
	const char *first[LEN(archs)] = { NULL };       /* variant of the first entry of each */
	struct buf b = { 0 };
	bool indented;

	while ((line = strsep(&table, "\n"))) {
		indented = *line == '\t';
		if (!(w = nextword(&line)))
			continue;
		if (!indented) {
			if (b.len)
				break;
			if (strcmp(w, name) != 0)
				continue;
			bufputs(&b, "images:\n");
			while ((w = nextword(&line)))
				if (strcmp(w, "=") == 0) {
					buffree(&b);
					w = nextword(&line);
					next = nextword(&line);
					return tabletext(w, next ? keep(",%s", next) : packages);
				} else if (startswith(w, "unsupported="))
					unsupported = strchr(w, '=') + 1;
				else if (startswith(w, "build="))
					build = strchr(w, '=') + 1;
				else if (strcmp(w, "noengine") == 0) {
					b.len = 0;
					bufputs(&b, "containerd: {system: false, user: false}\nimages:\n");
				}
		} else if (b.len && (strstr(w, "://") || (line && strstr(line, "://")))) {
			next = nextword(&line);
			variant = next ? w : "";
			url = next ? next : w;
		} else if (b.len) {
			for (; w; w = next) {
				const struct arch *ar = archbyname(w);
				next = nextword(&line);
				tableimage(&b, url, variant, ar, next && strchr(next, ':') ? next : NULL);
				if (!first[ar - archs])
					first[ar - archs] = variant;
				if (next && strchr(next, ':'))
					next = nextword(&line);
			}
		}
	}
	if (!b.len)
		return NULL;
	/* where only a package mirror can be reached */
	for (i = 0; build && i < LEN(archs); i++)
		if (first[i])
			tableimage(&b, keep("mmdebstrap:%s%s", build, packages), first[i], &archs[i], NULL);
	if (unsupported) {
		bufputs(&b, "mountTypesUnsupported:\n");
		for (next = keep("%s", unsupported); (w = strsep(&next, ",")); )
			bufprintf(&b, "- \"%s\"\n", w);
	}
	return bufkeep(&b);
}

/* A template out of the program itself: an embedded file, else the table.
 * template:NAME of a release is template:_images/NAME with the default mounts. */
static const char *
insidetext(const char *file)
{
	const char *mounts = "_default/mounts.yaml", *r, *name;
	const unsigned char *p;
	size_t len;

	if ((p = embeddedmaybe(keep("templates/%s", file), &len)))
		return (const char *)p;
	if (!endswith(file, ".yaml"))
		return NULL;
	name = keep("%.*s", (int)strlen(file) - 5, file);
	if (startswith(name, "_images/"))
		return (r = tabletext(name + 8, "")) ? r : tabletext(keep("experimental/%s", name + 8), "");
	return (r = tabletext(name, "")) ? keep("%s%s", r, insidetext(mounts)) : NULL;
}

/* Names that limactl 2 does without, and what stands for them. */
static void
warnremoved(const char *name)
{
	static const struct { const char *name, *use; } t[] = {
		{ "experimental/vz", "--vm-type=vz" }, { "experimental/riscv64", "--arch=riscv64" },
		{ "experimental/armv7l", "--arch=armv7l" }, { "vmnet", "--network=lima:shared" },
		{ "experimental/net-user-v2", "--network=lima:user-v2" }, { "experimental/9p", "--mount-type=9p" },
		{ "experimental/virtiofs-linux", "--mount-type=virtiofs" },
	};
	size_t i;

	for (i = 0; i < LEN(t); i++)
		if (strcmp(t[i].name, name) == 0)
			warn("Template %s was removed; use %s with another template", bq(name), bq(t[i].use));
}

/* The text of a template by its name: files before what is inside.  The parts
 * of others that are inside, _images/ and _default/, are always there. */
static const char *
templatetext(const char *name)
{
	const char *base = strrchr(name, '/'), *dot = strrchr(base ? base : name, '.'), *file, *text;
	struct buf b = { 0 };
	bool inside;
	struct strs dirs = templatedirs(&inside);
	size_t i;

	if (strstr(name, ".."))
		die("template name %s must not contain `..`", bq(name));
	file = dot && dot[1] && !isdigit((unsigned char)dot[1]) ? name : keep("%s.yaml", name);
	for (i = 0; i < dirs.n; i++) {
		if (readfile(keep("%s/%s", dirs.v[i], file), &b, templatemax) == 0)
			return bufkeep(&b);
		if (errno != ENOENT && errno != ENOTDIR)
			die("read %s/%s:", dirs.v[i], file);
	}
	if ((inside || *name == '_') && (text = insidetext(file)))
		return text;
	warnremoved(name);
	die("template %s not found", bq(file));
}

/* Templates there are: name, and where it is.  Of a name the first one counts. */
struct templates {
	struct tmpl { const char *name, *where; } *v;
	size_t n, cap;
};

static void
addtemplate(struct templates *l, const char *name, const char *where)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		if (strcmp(l->v[i].name, name) == 0)
			return;
	if (l->n == l->cap) {
		struct tmpl *v = yalloc(&perm, (l->cap = l->cap * 2 + 64) * sizeof *v);
		if (l->n)
			memcpy(v, l->v, l->n * sizeof *v);
		l->v = v;
	}
	l->v[l->n++] = (struct tmpl){ name, where };
}

/* Those below a directory; links to directories are not followed. */
static void
dirtemplates(struct templates *l, const char *dir, const char *prefix, int depth)
{
	int fd = open(dir, O_RDONLY|O_DIRECTORY|O_CLOEXEC|(depth ? O_NOFOLLOW : 0));
	DIR *dp = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	while (dp && (d = readdir(dp))) {
		if (*d->d_name == '.')
			continue;
		if (endswith(d->d_name, ".yaml"))
			addtemplate(l, keep("%s%.*s", prefix, (int)strlen(d->d_name) - 5, d->d_name), keep("%s/%s", dir, d->d_name));
		else if (depth < 8)
			dirtemplates(l, keep("%s/%s", dir, d->d_name), keep("%s%s/", prefix, d->d_name), depth + 1);
	}
	if (dp)
		closedir(dp);
}

static int
tmplcmp(const void *a, const void *b)
{
	return strcmp(((const struct tmpl *)a)->name, ((const struct tmpl *)b)->name);
}

/* All templates, sorted; without those whose names begin with _ unless asked
 * for: they are parts of others. */
static struct templates
listtemplates(bool parts)
{
	struct templates l = { 0 }, out = { 0 };
	size_t len, i;
	char *table, *line, *w;
	bool inside;
	struct strs dirs = templatedirs(&inside);

	for (i = 0; i < dirs.n; i++)
		dirtemplates(&l, dirs.v[i], "", 0);
	for (i = 0; inside && i < LEN(embeds); i++)
		if (startswith(embeds[i].name, "templates/") && endswith(embeds[i].name, ".yaml"))
			addtemplate(&l, keep("%.*s", (int)strlen(embeds[i].name) - 15, embeds[i].name + 10), keep("embedded:%s", embeds[i].name));
	line = (char *)(uintptr_t)embedded("templates/images", &len);
	table = keep("%.*s", (int)len, line);
	while (inside && (line = strsep(&table, "\n")))
		if (*line != '\t' && *line != '#' && (w = nextword(&line))) {
			addtemplate(&l, w, keep("embedded:templates/%s.yaml", w));
			w = startswith(w, "experimental/") ? w + 13 : w;
			addtemplate(&l, keep("_images/%s", w), keep("embedded:templates/_images/%s.yaml", w));
		}
	for (i = 0; i < l.n; i++)
		if (parts || *l.v[i].name != '_')
			addtemplate(&out, l.v[i].name, l.v[i].where);
	if (out.n)
		qsort(out.v, out.n, sizeof *out.v, tmplcmp);
	return out;
}

/* The instance name of a path or template name. */
static const char *
nameoffile(const char *path)
{
	const char *base = strrchr(path, '/'), *e;
	char *s = keep("%s", base ? base + 1 : path), *p;

	for (p = s; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	if (endswith(s, ".yml"))
		s[strlen(s) - 4] = '\0';
	if (endswith(s, ".yaml"))
		s[strlen(s) - 5] = '\0';
	if ((e = badident(s)))
		die("filename %s is invalid: %s", bq(s), e);
	return s;
}

/* The scheme of a locator: the length of what stands before the colon, 0 when
 * it has none.  One letter is none, for drives of other systems look so. */
static size_t
schemelen(const char *loc)
{
	size_t n = strspn(loc, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-");

	return n > 1 && loc[n] == ':' && isalpha((unsigned char)*loc) ? n : 0;
}

/* A slash path without . and .. and empty components; NULL when it climbs out. */
static const char *
cleanpath(const char *path)
{
	char *s = keep("%s", path), *w, *e;
	struct buf b = { 0 };

	while ((w = strsep(&s, "/"))) {
		if (!*w || strcmp(w, ".") == 0)
			continue;
		if (strcmp(w, "..") != 0) {
			bufprintf(&b, "%s%s", b.len ? "/" : "", w);
			continue;
		}
		if (!b.len) {
			buffree(&b);
			return NULL;
		}
		e = strrchr(b.s, '/');
		b.len = e ? (size_t)(e - b.s) : 0;
		b.s[b.len] = '\0';
	}
	return bufkeep(&b);
}

static const char *
githubdefault(const char *org, const char *repo)
{
	const char *tok = envor("GH_TOKEN", envor("GITHUB_TOKEN", NULL)), *url = keep("https://api.github.com/repos/%s/%s", org, repo), *branch = NULL;
	struct buf b = { 0 };
	struct ydoc d = { 0 };
	struct ynode *n;
	int code;

	if (tok && tok[strspn(tok, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.=")])
		die("GH_TOKEN and GITHUB_TOKEN must not contain blanks or special characters");
	code = httpget(url, tok ? keep("token %s", tok) : NULL, &b, 1 << 20);
	if (code == 200 && yparsejson(&d, b.s, b.len) == 0 && (n = ypath(d.root, "default_branch")) && n->kind == Y_STR && *n->s)
		branch = keep("%s", n->s);
	yfree(&d);
	buffree(&b);
	if (!branch && code > 0)
		die("cannot find the default branch of `github:%s/%s`: %s says status %d", org, repo, url, code);
	if (!branch)
		die("cannot find the default branch of `github:%s/%s`; name one with @BRANCH", org, repo);
	return branch;
}

/* What github:ORG[/REPO][/PATH][@BRANCH] stands for: the address of the file
 * there, or what a redirect of the organisation says (spec/cli.md 6.4). */
static const char *
github(const char *loc)
{
	char *rest = keep("%s", strchr(loc, ':') + 1), *branch = strchr(rest, '@'), *org, *repo, *path;
	const char *last, *file, *ref, *url, *text, *dir, *to;
	struct buf b = { 0 };
	int code;

	if (branch)
		*branch++ = '\0';
	if (branch && !*branch)
		branch = NULL;
	org = strsep(&rest, "/");
	repo = rest ? strsep(&rest, "/") : NULL;
	if (!repo || !*repo)
		repo = org;
	path = rest ? rest : keep("%s", "");
	if (!*org)
		die("github: URL must contain at least an ORG, got %s", bq(loc));
	last = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (!*last)
		file = keep("%s.lima.yaml", path);
	else
		file = strchr(last + 1, '.') ? path : keep("%s.yaml", path);
	if (!(file = cleanpath(file)) || strcmp(repo, "..") == 0 || strcmp(repo, ".") == 0 || strcmp(org, "..") == 0 ||
	    (branch && !cleanpath(branch)))
		die("locator %s escapes the repository", bq(loc));
	ref = branch ? branch : githubdefault(org, repo);
	url = keep("https://raw.githubusercontent.com/%s/%s/%s/%s", org, repo, ref, file);
	if (!endswith(file, ".yaml") && !endswith(file, ".yml"))
		return url;
	code = httpget(url, NULL, &b, templatemax);
	if (code == 404 && branch && strcmp(org, repo) == 0) {
		b.len = 0;
		url = keep("https://raw.githubusercontent.com/%s/%s/%s/%s", org, repo, githubdefault(org, repo), file);
		if ((code = httpget(url, NULL, &b, templatemax)) == 200 && !startswith(b.s, "github:"))
			code = 404;     /* only a redirect counts there */
	}
	if (code != 200)
		die(code > 0 ? "file %s not found or inaccessible: status %d" : "file %s not found or inaccessible", bq(url), code);
	text = keep("%.*s", b.len < 1024 ? (int)b.len : 1024, b.s);
	buffree(&b);
	if (strcmp(org, repo) == 0 && startswith(text, "github:")) {
		to = keep("%.*s", (int)strcspn(text, "\r\n"), text);
		if (!startswith(to, keep("github:%s/", org)))
			die("redirect %s is not a `github:%s` URL (from %s)", bq(to), org, bq(url));
		if (strchr(to, '@'))
			die("redirect %s must not include a branch/tag/sha (from %s)", bq(to), bq(url));
		return branch ? keep("%s@%s", to, branch) : to;
	}
	if (!*text || strpbrk(text, "\n :"))
		return url;
	/* one word: what git makes of a symbolic link */
	dir = parentdir(file);
	if (*text == '/' || !(to = cleanpath(keep("%s/%s", dir ? dir : "", text))))
		die("symlink target %s in %s escapes the repository", bq(text), bq(url));
	return keep("%.*s%s", (int)(strlen(url) - strlen(file)), url, to);
}

/* What the program limactl-url-SCHEME makes of a locator; NULL without one. */
static const char *
urlplugin(const char *loc, size_t n)
{
	const char *prog = findin(pluginpath(), keep("limactl-url-%.*s", (int)n, loc)), *r;
	struct args a = { 0 };
	struct buf out = { 0 }, err = { 0 };
	int st;

	if (!prog)
		return NULL;
	arg(&a, "%s", prog);
	arg(&a, "%s", loc + n + 1);
	st = runerr(a.v, NULL, &out, &err);
	if (gotsig)
		die("interrupted");
	if (st != 0)
		die("command `%s %s` failed: %s", prog, loc + n + 1, *chomp(err.s) ? err.s : ended(st));
	buffree(&err);
	argsfree(&a);
	r = chomp(keep("%s", out.s));
	buffree(&out);
	return r + strspn(r, " \t\r\n");
}

/* What a locator stands for when its scheme is not one that is read: plugins,
 * github: and the old spelling of template:, repeated until nothing changes. */
static const char *
locate(const char *loc)
{
	const char *seen[64], *first = loc, *to;
	bool hub = false;
	size_t n, i, k;

	for (i = 0; ; i++, loc = to) {
		n = schemelen(loc);
		if (startswith(loc, "template://")) {
			to = keep("template:%s", loc + 11);
			warn("Template locator %s should be written %s since Lima v2.0", bq(loc), bq(to));
		} else if (!n || startswith(loc, "template:")) {
			to = NULL;
		} else if (startswith(loc, "github:")) {
			if (!hub)
				warn("The github: scheme is still EXPERIMENTAL");
			hub = true;
			to = github(loc);
		} else if ((to = urlplugin(loc, n)) && strcmp(to, loc) == 0)
			to = NULL;
		if (!to)
			return loc;
		debug("Locator %s replaced with %s", bq(loc), bq(to));
		seen[i] = loc;
		for (k = 0; k <= i; k++)
			if (i == LEN(seen) - 1 || strcmp(seen[k], to) == 0)
				die("custom locator %s has a redirect loop", bq(first));
	}
}

/* The length of the suffix that makes a locator an image, 0 when it is none. */
static size_t
imagesuffix(const char *s)
{
	static const char *const ext[] = { ".img", ".qcow2", ".raw", ".iso", ".ipsw" };
	static const char *const packed[] = { "", ".gz", ".xz", ".bz2", ".zstd" };
	const char *e;
	size_t i, k;

	for (i = 0; i < LEN(ext); i++)
		for (k = 0; k < LEN(packed); k++)
			if (endswith(s, e = keep("%s%s", ext[i], packed[k])))
				return strlen(e);
	return 0;
}

/* Remove each [-_.]WORD that ends at the end of a word. */
static void
dropword(char *s, const char *word)
{
	size_t n = strlen(word);
	char *p = s;

	while ((p = strstr(p, word)))
		if (p > s && strchr("-_.", p[-1]) && !wordchar(p[n])) {
			memmove(p - 1, p + n, strlen(p + n) + 1);
			p--;
		} else
			p++;
}

/* Remove dates: [-_.]20dddddd, and a number behind it. */
static void
dropdates(char *s)
{
	size_t n, k;
	char *p;

	for (p = s; *p; p++) {
		if (!strchr("-_.", *p) || strncmp(p + 1, "20", 2) != 0 || strspn(p + 1, "0123456789") < 8)
			continue;
		n = 9;
		k = p[n] && strchr("-_.", p[n]) ? strspn(p + n + 1, "0123456789") : 0;
		if (k && !wordchar(p[n + 1 + k]))
			n += k + 1;
		else if (wordchar(p[n]))
			continue;
		memmove(p, p + n, strlen(p + n) + 1);
		p--;
	}
}

/* The architecture that an image's address names as a word of its own, the
 * first one; NULL when none. */
static const struct arch *
imagearch(const char *loc)
{
	const struct arch *ar;
	const char *p;
	size_t n, i, k;

	for (p = loc; *p; p += n ? n : 1) {
		n = wordlen(p);
		for (i = 0; i < LEN(archs); i++)
			for (ar = &archs[i], k = 0; k < 2; k++) {
				const char *w = k ? ar->other : ar->name;
				if (strlen(w) == n && strncmp(w, p, n) == 0)
					return ar;
			}
	}
	return NULL;
}

/* The instance name out of an image's address (spec/config.md 9.6). */
static const char *
imagename(const char *loc, const struct arch *ar)
{
	static const char *const tags[] = {
		"base", "basic", "cloud", "cloudimg", "cloudinit", "current", "daily", "default", "generic", "genericcloud",
		"kvm", "latest", "linux", "minimal", "openstack", "release", "restore", "server", "std", "stream", "uefi", "vm",
	};
	const char *base = strrchr(loc, '/');
	char *s = keep("%s", base ? base + 1 : loc), *p, *q;
	size_t i, n;

	for (p = s; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	s[strlen(s) - imagesuffix(s)] = '\0';
	s += startswith(s, "nocloud_") ? 8 : 0;
	for (i = 0; i < LEN(tags); i++)
		dropword(s, tags[i]);
	if ((p = strstr(s, "arm64-aarch64")))
		memmove(p + 5, p + 13, strlen(p + 13) + 1);
	if (strcmp(ar->name, host.arch) == 0)
		dropword(s, ar->name);
	dropdates(s);
	if (startswith(s, "arch") && !wordchar(s[4]))
		s = keep("archlinux%s", s + 4);
	for (p = s; (p = strchr(p, '-')); p++) {        /* rocky-8-8.10 */
		n = strspn(p + 1, "0123456789");
		q = p + 1 + n;
		if (n && *q == '-' && strncmp(q + 1, p + 1, n) == 0 && q[1 + n] == '.') {
			memmove(p, q, strlen(q) + 1);
			break;
		}
	}
	return s;
}

/* The template of a mere image. */
static struct template
imagetemplate(const char *loc, const char *name)
{
	const struct arch *ar = imagearch(loc);
	struct template t = { .from = loc };
	struct buf b = { 0 };
	const char *e, *os = strstr(loc, "FreeBSD") ? "FreeBSD" : strstr(loc, "macOS") || strstr(loc, ".ipsw") ? "Darwin" : "Linux", *cwd;

	if (!ar) {
		ar = archbyname(host.arch);
		warn("cannot determine image arch from URL %s; assuming %s", bq(loc), bq(ar->name));
	}
	t.name = name ? name : imagename(loc, ar);
	if ((e = badident(t.name)))
		die("filename %s is invalid: %s", bq(t.name), e);
	bufprintf(&b, "os: %s\narch: %s\nimages:\n- location: ", os, ar->name);
	if (!strstr(loc, "://") && *loc != '/' && *loc != '~' && (cwd = resolved(".")))
		loc = keep("%s/%s", cwd, startswith(loc, "./") ? loc + 2 : loc);
	yjsonstr(&b, loc, strlen(loc));
	bufprintf(&b, "\n  arch: %s\n", ar->name);
	t.text = bufkeep(&b);
	return t;
}

/* The name of a github: locator whose file is the .lima.yaml of a directory. */
static const char *
githubname(const char *loc)
{
	char *s = keep("%s", strchr(loc, ':') + 1);

	s[strcspn(s, "@")] = '\0';
	while (*s && endswith(s, "/"))
		s[strlen(s) - 1] = '\0';
	return nameoffile(s);
}

/* The absolute form of what a command was given. */
static const char *
absolutefrom(const char *from)
{
	const char *cwd;

	if (schemelen(from) || *from == '/')
		return from;
	if (!(cwd = resolved(".")))
		die("the current directory:");
	return lexclean(keep("%s/%s", cwd, from));
}

/* The bytes that a locator, arg before it was rewritten, stands for. */
static const char *
locatortext(const char *arg, const char *loc)
{
	const char *path = startswith(loc, "file://") ? loc + 7 : loc;
	struct buf b = { 0 };
	int code;

	if (startswith(loc, "template:"))
		return templatetext(loc + 9);
	if (startswith(loc, "http://") || startswith(loc, "https://")) {
		if ((code = httpget(loc, NULL, &b, templatemax)) < 0)
			die("cannot read the template %s", bq(loc));
		if (code != 200)
			die("cannot read the template %s: status %d", bq(loc), code);
	} else if (strcmp(loc, "-") == 0) {
		if (readall(0, &b, templatemax) < 0)
			die("read standard input:");
	} else {
		if (path != loc && *path != '/')    /* a URL with nothing behind the host has the name `.` */
			die("%sfile URL %s is not an absolute path", strchr(path, '/') ? "" : "filename `.` is invalid: ", bq(loc));
		if (readfile(path = absolutefrom(path), &b, templatemax) < 0)
			die("open %s: %s", path, errtext(errno));
	}
	if (!b.len)
		die("don't know how to interpret %s as a template locator", bq(arg));
	if (strlen(b.s) != b.len)
		die("%s has a NUL byte: it is no YAML text", bq(arg));
	return bufkeep(&b);
}

/* Read a template from a locator (spec/cli.md 6.1).  name: its name, NULL to
 * take it from the locator. */
static struct template
readtemplateas(const char *loc, const char *name)
{
	const char *arg = loc, *path = loc = locate(loc);
	struct template t = { .from = loc, .name = name };
	bool web = startswith(loc, "http://") || startswith(loc, "https://");

	if (imagesuffix(loc))
		return imagetemplate(loc, name);
	t.text = locatortext(arg, loc);
	if (web)
		path = strchr(loc, ':') + 3;
	else if (startswith(loc, "template:"))
		path = loc + 9;
	if (!name && web && startswith(arg, "github:") && endswith(path, "/.lima.yaml"))
		t.name = githubname(arg);
	else if (!name && strcmp(loc, "-") != 0)
		t.name = nameoffile(web ? keep("%.*s", (int)strcspn(path, "?#"), path) : path);
	return t;
}

static struct template
readtemplate(const char *loc)
{
	return readtemplateas(loc, NULL);
}

/* ---- base templates ---- */

/* What `base:` names is merged into the text before anything else sees it
 * (spec/config.md 7): T of [A, B], A of [C] is T < (A < C) < B, where the left
 * one wins.  A key that is there counts, be it null; a null of a base does not.
 * Lists join, their items stay as they are.  The tree is changed and not built
 * anew, so the comments of the main file stay. */

enum { EMBBASES = 1, EMBTEMPLATES = 2, EMBSHARED = 4, EMBALL = 7, embeddepth = 32 };
struct embedding {
	int how;                        /* bits: bases and files, template: ones too, _config/base.yaml too */
	size_t bytes;                   /* read so far, at most templatemax */
	const char *held;               /* the first base that is left as it is */
	const struct seen { const char *loc; const struct seen *next; } *seen;
};
/* A template on its way in, and the one that wants it. */
struct origin { const char *loc; const struct origin *up; int depth; };

/* A locator inside the template `from`, relative to its place. */
static const char *
absolutelocator(const char *from, const char *loc)
{
	size_t n = schemelen(from), i, len = strcspn(from, n && startswith(from + n, "://") ? "?#" : "");

	if (!*loc)
		die("locator is empty");
	loc = tilde(loc);
	if (schemelen(loc) || *loc == '/')
		return loc;
	if (strstr(loc, "../") || strstr(loc, "..\\"))
		die("relative locator path %s must not contain '..' path segments", bq(loc));
	while (startswith(loc, "./"))
		loc += 2;
	for (i = len; i && from[i - 1] != '/' && !(n && i == n + 1); i--)
		;
	return keep("%.*s%s", (int)i, from, loc);
}

/* Make a locator, alone or the `url` of a map, absolute where it stands; NULL
 * when it is none. */
static const char *
makeabsolute(struct ydoc *d, struct ynode *n, const char *from)
{
	const char *loc, *abs;

	if (n && n->kind == Y_MAP)
		n = yget(n, "url");
	if (!n || n->kind == Y_NULL || n->kind >= Y_SEQ)
		return NULL;
	loc = ystr(n);
	abs = absolutelocator(from, loc);
	if (strcmp(abs, loc) != 0)
		(void)yreplace(d, n, ynewstr(d, abs));
	return abs;
}

/* The bases of a template, absolute ones from now on, after `first`. */
static struct strs
basesof(struct ydoc *d, const char *from, const char *first)
{
	struct ynode *base = yget(d->root, "base"), *v, *next;
	struct strs s = { yalloc(&perm, ((base ? base->n : 0) + 2) * sizeof *s.v), 0 };

	if (base && base->n > manyentries)
		die("template %s: [%d:%d] field `base` has %zu entries, more than %d", bq(from), base->line, base->col, base->n, manyentries);
	if (first)
		s.v[s.n++] = first;
	for (v = base && base->kind == Y_SEQ ? base->first : base; v && v->kind != Y_NULL; v = next) {
		next = v == base ? NULL : v->next;
		if (!(s.v[s.n] = makeabsolute(d, v, from)))
			die("template %s: [%d:%d] field `base` must be a locator or a list of locators", bq(from), v->line, v->col);
		if (v->kind == Y_MAP && yget(v, "digest"))
			die("base %s in %s has specified a digest; digest support is not yet implemented", bq(s.v[s.n]), bq(from));
		s.n++;
	}
	return s;
}

/* Provision entries and probes with a `file`: absolute, and (inside) its text in
 * the place of it. */
static void
embedfiles(const struct embedding *e, struct ydoc *d, const char *from)
{
	static const char *const lists[] = { "provision", "probes" }, *const texts[] = { "script", "content", "expression" };
	struct ynode *list, *v, *file, *old, *new;
	const char *loc, *mode, *text, *digest;
	size_t i, k;

	for (i = 0; i < LEN(lists); i++) {
		list = yget(d->root, lists[i]);
		for (v = list && list->kind == Y_SEQ ? list->first : NULL; v; v = v->next) {
			if (v->kind != Y_MAP || !(loc = makeabsolute(d, yget(v, "file"), from)))
				continue;
			file = yget(v, "file");
			for (k = 0; k < LEN(texts) && !((old = yget(v, texts[k])) && old->len); k++)
				;
			if (k < LEN(texts) || !(e->how & EMBBASES) || (startswith(loc, "template:") && !(e->how & EMBTEMPLATES)))
				continue;
			text = locatortext(loc, locate(loc));
			if (file->kind == Y_MAP && (digest = ystr(yget(file, "digest"))) && *digest)
				needdigest(text, digest, loc);
			mode = ystr(yget(v, "mode"));
			k = i || !mode ? 0 : strcmp(mode, "data") == 0 ? 1 : strcmp(mode, "yq") == 0 ? 2 : 0;
			new = ynewstr(d, text);
			new->style = Y_LITERAL;
			ydel(d, file);
			(void)yput(d, v, texts[k], new);
		}
	}
}

/* Give a map the entry v of a base: what it lacks. */
static void
mergeentry(struct ydoc *d, struct ynode *map, const struct ynode *v)
{
	struct ynode *old = yget(map, ykey(v)), *at, *have;
	const struct ynode *k;
	const char *key = ykey(v);
	bool tail, top = map == d->root;

	if (v->kind == Y_NULL || (top && strcmp(key, "base") == 0))
		return;
	if (!old) {
		(void)yput(d, map, key, ycopy(d, v));
	} else if (old->kind == Y_MAP && v->kind == Y_MAP) {
		for (k = v->first; k; k = k->next)
			mergeentry(d, old, k);
	} else if (old->kind == Y_SEQ && v->kind == Y_SEQ) {
		if (top && strcmp(key, "dns") == 0 && old->n)
			return;
		if (top && (strcmp(key, "provision") == 0 || strcmp(key, "probes") == 0)) {
			have = ynewseq(d);
			for (k = v->first; k; k = k->next)
				yprepend(d, have, ycopy(d, k));
			for (at = have->first; at; at = at->next)
				yprepend(d, old, ycopy(d, at));
			return;
		}
		for (k = v->first; k; k = k->next) {
			have = top && strcmp(key, "mountTypesUnsupported") == 0 ? old->first : NULL;
			while (have && !yequal(have, k))
				have = have->next;
			if (!have)
				yappend(d, old, ycopy(d, k));
		}
	} else if (old->kind != Y_NULL && old->kind < Y_SEQ && v->kind < Y_SEQ &&
	    (strcmp(key, "minimumLimaVersion") == 0 || (!top && strcmp(key, "minimumVersion") == 0))) {
		long long a = version3(ystr(old), &tail), b = version3(v->text ? v->text : "", &tail);
		if (a >= 0 && b > a)
			(void)yreplace(d, old, ycopy(d, v));
	}
}

/* A template that is nothing but `base:` becomes its first base, byte for byte,
 * below its own comments.  False when it is more. */
static bool
becomebase(struct ydoc *d, const char *text)
{
	const struct ynode *v = yget(d->root, "base");
	struct buf b = { 0 };
	struct ydoc n = { 0 };
	bool good;

	if (!v || d->root->n != 1)
		return false;
	if (d->root->style == Y_BLOCK)
		bufadd(&b, d->text, ylinestart(d, yentrystart(v)));
	bufputs(&b, text);
	if (d->root->style == Y_BLOCK)
		bufputs(&b, d->text + yentrystop(d, v));
	good = yparse(&n, b.s, b.len) == 0 && n.root->kind == Y_MAP;
	buffree(&b);
	yfree(d);
	*d = n;
	if (good)
		return true;
	yfree(d);               /* --- and the like on both sides */
	*d = (struct ydoc){ 0 };
	(void)yparse(d, text, strlen(text));
	return true;
}

static const char *embedtext(struct embedding *e, const struct origin *o, const char *text, const char *first);

/* The templates on the way to loc. */
static const char *
originchain(const struct origin *o, const char *loc)
{
	for (loc = bq(loc); o; o = o->up)
		loc = keep("%s > %s", bq(o->loc), loc);
	return loc;
}

/* Merge one base into d, or leave it, as an entry of kept. */
static void
embedbase(struct embedding *e, const struct origin *o, struct ydoc *d, const char *loc, struct ydoc *kept)
{
	struct template t;
	struct origin me = { .up = o, .depth = o->depth + 1 };
	const struct seen *s;
	struct seen *new;
	struct ydoc b = { 0 };
	const struct ynode *v;

	if (startswith(loc, "template:") && !(e->how & EMBTEMPLATES)) {
		e->held = e->held ? e->held : loc;
		yappend(kept, kept->root, ynewstr(kept, loc));
		return;
	}
	if (e->held)
		die("cannot embed template %s after not embedding %s", bq(loc), bq(e->held));
	for (s = e->seen; s; s = s->next)
		if (strcmp(s->loc, loc) == 0)
			die("base template loop detected: template %s already included (%s)", bq(loc), originchain(o, loc));
	if (me.depth > embeddepth)
		die("base templates are nested more than %d deep (%s)", embeddepth, originchain(o, loc));
	new = yalloc(&perm, sizeof *new);
	*new = (struct seen){ loc, e->seen };
	e->seen = new;
	t = readtemplate(loc);
	me.loc = t.from;
	if ((e->bytes += strlen(t.text)) > templatemax)
		die("template %s embedding exceeded the size limit (%d bytes)", bq(loc), templatemax);
	t.text = embedtext(e, &me, t.text, NULL);
	(void)yparse(&b, t.text, strlen(t.text));
	if (b.root->kind == Y_MAP) {
		if ((v = yget(b.root, "base")) && v->kind != Y_SEQ)
			yappend(kept, kept->root, ycopy(kept, v));
		for (v = v && v->kind == Y_SEQ ? v->first : NULL; v; v = v->next)
			yappend(kept, kept->root, ycopy(kept, v));
		if (!becomebase(d, t.text))
			for (v = b.root->first; v; v = v->next)
				mergeentry(d, d->root, v);
	}
	yfree(&b);
}

/* Lists that fold: entries with one key are one. */
static const struct fold { const char *list, *key, *other; } folds[] = {
	{ "additionalDisks", "name", NULL }, { "mounts", "mountPoint", "location" }, { "networks", "interface", NULL },
};

/* The key of an entry: "" for none. */
static const char *
foldkey(const struct fold *f, const struct ynode *v)
{
	const struct ynode *n = v->kind == Y_MAP ? yget(v, f->key) : f->other ? NULL : v;
	const char *a = n && n->kind < Y_SEQ ? ystr(n) : NULL, *b;

	if (!f->other || v->kind != Y_MAP)
		return a ? a : "";
	b = (n = yget(v, f->other)) && n->kind < Y_SEQ ? ystr(n) : NULL;
	return b && strcmp(b, "*") == 0 ? b : a && *a ? a : b ? b : "";
}

/* Give the entry `to` what it lacks of the later one v, which goes away. */
static void
foldinto(struct ydoc *d, const struct fold *f, struct ynode *to, const struct ynode *v)
{
	const struct ynode *k;
	struct ynode *m, *old;
	bool wired;

	if (v->kind != Y_MAP)
		return;
	if (to->kind != Y_MAP) {        /* a disk that is only a name */
		m = ynewmap(d);
		(void)yput(d, m, f->key, ycopy(d, to));
		to = yreplace(d, to, m);
	}
	wired = yget(to, "lima") || yget(to, "socket");
	for (k = v->first; k; k = k->next) {
		const char *key = ykey(k);
		if ((k->text && strcmp(k->text, "*") == 0) || (wired && (strcmp(key, "lima") == 0 || strcmp(key, "socket") == 0)))
			continue;
		old = yget(to, key);
		if (!old || (old->kind == Y_MAP && k->kind == Y_MAP))
			mergeentry(d, to, k);
	}
}

static void
foldlists(struct ydoc *d)
{
	struct ynode *list, *v, *w, *next, *after;
	const char *key;
	bool all, hit;
	size_t i;

	for (i = 0; i < LEN(folds); i++) {
		list = yget(d->root, folds[i].list);
		if (list && list->n > manyentries)
			continue;       /* loading refuses it */
		for (v = list && list->kind == Y_SEQ ? list->first : NULL; v; v = next) {
			next = v->next;
			key = foldkey(&folds[i], v);
			hit = all = strcmp(key, "*") == 0;
			for (w = list->first; *key && w != v && (all || !hit); w = after) {
				after = w->next;
				if (all || strcmp(foldkey(&folds[i], w), key) == 0) {
					hit = true;
					foldinto(d, &folds[i], w, v);
				}
			}
			if (hit)
				ydel(d, v);
		}
	}
}

/* A template's text with its bases and files inside, as far as e says.  A main
 * file that is no map comes back as it is, for loading it tells what is wrong. */
static const char *
embedtext(struct embedding *e, const struct origin *o, const char *text, const char *first)
{
	struct ydoc d = { 0 }, kept = { 0 };
	struct buf b = { 0 };
	struct strs bases;
	const char *only;
	size_t i;

	if (yparse(&d, text, strlen(text)) < 0 || d.root->kind != Y_MAP) {
		if (o->up && !d.root)
			die("failed to unmarshal YAML (base template %s): [%d:%d] %s", bq(o->loc), d.eline, d.ecol, d.err);
		if (o->up && d.root->kind != Y_NULL)
			die("base template %s is not a map (%s)", bq(o->loc), originchain(o->up, o->loc));
		yfree(&d);
		return o->up ? "" : text;
	}
	bases = basesof(&d, o->loc, first);
	embedfiles(e, &d, o->loc);
	if (e->how & EMBBASES) {
		(void)yparse(&kept, "[]", 2);
		for (i = 0; i < bases.n; i++)
			embedbase(e, o, &d, bases.v[i], &kept);
		only = kept.root->n == 1 ? ystr(yget(d.root, "base")) : NULL;
		if (only && strcmp(only, ystr(kept.root->first)) == 0)
			;                       /* alone and no list: it stays so */
		else if (kept.root->n)
			(void)yput(&d, d.root, "base", ycopy(&d, kept.root));
		else if (bases.n)
			ydel(&d, yget(d.root, "base"));
		yfree(&kept);
		if (!o->up)
			foldlists(&d);
	}
	if (d.root->dirty || bases.n) {
		ywrite(&d, &b);
		text = bufkeep(&b);
	}
	yfree(&d);
	return text;
}

/* The text of a template with its bases inside; how: EMB bits, 0 only makes the
 * locators in it absolute. */
static const char *
templateembed(const struct template *t, int how)
{
	struct seen self = { .loc = absolutefrom(t->from) };
	struct embedding e = { .how = how, .seen = &self };
	struct origin o = { .loc = self.loc };
	const char *common = keep("%s/_config/base.yaml", host.limahome);

	return embedtext(&e, &o, t->text, (how & EMBSHARED) && access(common, F_OK) == 0 ? common : NULL);
}

/* ---- 15. ISO 9660 ------------------------------------------------------- */

/* The cidata disk: ECMA-119 level 1 names that only keep the records sorted,
 * and the real names, modes and owners in Rock Ridge (SUSP 1.12, RRIP 1.09)
 * system use fields.  Same input, same bytes: no dates.  One pass assigns
 * extents, one writes in order and asserts each offset. */

#define SECTOR 2048
struct isonode {
	const char *name;               /* Rock Ridge name; NULL: the root */
	const void *data;
	size_t len;                     /* bytes; of a directory computed here */
	mode_t mode;                    /* S_IFDIR or S_IFREG and permissions */
	size_t parent;                  /* index of its directory */
	uint32_t lba;
};
struct iso { struct isonode *v; size_t n, cap; };

/* Add a file, or (data NULL, mode S_IFDIR) a directory; its index.  Entry 0 is
 * the root and adds itself.  Nothing is copied. */
static size_t
isoadd(struct iso *iso, size_t parent, const char *name, mode_t mode, const void *data, size_t len)
{
	if (!iso->n && name)
		isoadd(iso, 0, NULL, S_IFDIR|0755, NULL, 0);
	if (iso->n == iso->cap)
		iso->v = xrealloc(iso->v, iso->cap = iso->cap * 2 + 16, sizeof *iso->v);
	iso->v[iso->n] = (struct isonode){ name, data, len, mode, parent, 0 };
	return iso->n++;
}

static void
put16(struct buf *b, uint16_t v)                /* 7.2.3: both byte orders */
{
	unsigned char p[4] = { (unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 8), (unsigned char)v };

	bufadd(b, p, 4);
}

static void
put32le(struct buf *b, uint32_t v)              /* 7.3.1 */
{
	int i;

	for (i = 0; i < 4; i++)
		bufputc(b, (unsigned char)(v >> 8 * i));
}

static void
put32be(struct buf *b, uint32_t v)              /* 7.3.2 */
{
	v = htonl(v);
	bufadd(b, &v, 4);
}

static void
put733(struct buf *b, uint32_t v)               /* 7.3.3: both byte orders */
{
	put32le(b, v);
	put32be(b, v);
}

static void
putzero(struct buf *b, size_t n)
{
	while (n--)
		bufputc(b, 0);
}

static void
putpad(struct buf *b, const char *s, size_t n)
{
	size_t i, len = strlen(s);

	for (i = 0; i < n; i++)
		bufputc(b, i < len ? s[i] : ' ');
}

/* A directory record (9.1) with its system use fields; self: 0 for the node
 * under its name, 1 for ".", 2 for "..". */
static void
isorecord(struct buf *out, const struct iso *iso, size_t i, int self)
{
	const struct isonode *n = &iso->v[i];
	struct buf r = { 0 }, id = { 0 };
	bool dir = S_ISDIR(n->mode);

	if (self)
		bufputc(&id, self - 1);                 /* 7.6.2 */
	else
		bufprintf(&id, dir ? "%08zu" : "%08zu.;1", i);
	bufputc(&r, 0);                                 /* length, set below */
	bufputc(&r, 0);
	put733(&r, n->lba);
	put733(&r, (uint32_t)n->len);
	bufadd(&r, "\x50\1\1\0\0\0\0", 7);              /* 1980-01-01, 9.1.5 */
	bufputc(&r, dir ? 2 : 0);
	bufputc(&r, 0);
	bufputc(&r, 0);
	put16(&r, 1);
	bufputc(&r, (int)id.len);
	bufadd(&r, id.s, id.len);
	if (id.len % 2 == 0)
		bufputc(&r, 0);
	if (self == 1 && i == 0)
		bufadd(&r, "SP\7\1\xbe\xef\0" "ER\22\1\12\0\0\1" "RRIP_1991A", 25);     /* SUSP 5.3, 5.5 */
	bufadd(&r, "PX\44\1", 4);                       /* RRIP 4.1.1 */
	put733(&r, n->mode);
	put733(&r, dir ? 2 : 1);
	put733(&r, 0);
	put733(&r, 0);
	if (!self)
		bufprintf(&r, "NM%c%c%c%s", (int)(5 + strlen(n->name)), 1, 0, n->name);        /* 4.1.4 */
	if (r.len % 2)
		bufputc(&r, 0);
	assert(r.len < 255);
	r.s[0] = (char)r.len;
	if (out->len % SECTOR + r.len > SECTOR)         /* 6.8.1.1: no record crosses a sector */
		putzero(out, SECTOR - out->len % SECTOR);
	bufadd(out, r.s, r.len);
	buffree(&r);
	buffree(&id);
}

/* The extent of a directory; the offset it is written at is a sector's. */
static void
isodir(struct buf *out, const struct iso *iso, size_t dir)
{
	size_t i;

	isorecord(out, iso, dir, 1);
	isorecord(out, iso, iso->v[dir].parent, 2);
	for (i = 1; i < iso->n; i++)
		if (iso->v[i].parent == dir)
			isorecord(out, iso, i, 0);
	if (out->len % SECTOR)
		putzero(out, SECTOR - out->len % SECTOR);
}

/* A path table (9.4), one byte order. */
static void
isopaths(struct buf *out, const struct iso *iso, void (*put)(struct buf *, uint32_t), bool big)
{
	struct buf id = { 0 };
	size_t i, k, number, parent;

	for (i = 0; i < iso->n; i++) {
		if (!S_ISDIR(iso->v[i].mode))
			continue;
		for (k = number = parent = 0; k < iso->n; k++) {
			number += S_ISDIR(iso->v[k].mode);
			if (k == iso->v[i].parent)
				parent = number;
		}
		id.len = 0;
		if (i == 0)
			bufputc(&id, 0);
		else
			bufprintf(&id, "%08zu", i);
		bufputc(out, (int)id.len);
		bufputc(out, 0);
		put(out, iso->v[i].lba);
		bufputc(out, big ? (int)(parent >> 8) : (int)(parent & 255));
		bufputc(out, big ? (int)(parent & 255) : (int)(parent >> 8));
		bufadd(out, id.s, id.len);
		if (id.len % 2)
			bufputc(out, 0);
	}
	buffree(&id);
}

/* The primary volume descriptor (8.4). */
static void
isopvd(struct buf *out, const struct iso *iso, const char *label, uint32_t sectors, uint32_t pathlen)
{
	size_t start = out->len;
	int i;

	bufadd(out, "\1CD001\1\0", 8);
	putpad(out, "", 32);
	putpad(out, label, 32);
	putzero(out, 8);
	put733(out, sectors);
	putzero(out, 32);
	put16(out, 1);
	put16(out, 1);
	put16(out, SECTOR);
	put733(out, pathlen);
	put32le(out, 18);
	put32le(out, 0);
	put32be(out, 19);
	put32be(out, 0);
	/* 34 bytes: the root's record without system use fields */
	bufadd(out, "\42\0", 2);
	put733(out, iso->v[0].lba);
	put733(out, (uint32_t)iso->v[0].len);
	bufadd(out, "\x50\1\1\0\0\0\0\2\0\0", 10);
	put16(out, 1);
	bufadd(out, "\1\0", 2);
	putpad(out, "", 128 * 4 + 37 * 3);
	for (i = 0; i < 4; i++)
		bufadd(out, "0000000000000000", 17);    /* 8.4.26.1: not specified */
	bufputc(out, 1);
	putzero(out, SECTOR - (out->len - start));
}

/* The whole image into out. */
static void
isowrite(struct iso *iso, const char *label, struct buf *out)
{
	struct buf paths = { 0 }, tmp = { 0 };
	uint32_t lba = 20;
	size_t i;

	for (i = 0; i < iso->n; i++)
		if (S_ISDIR(iso->v[i].mode)) {
			tmp.len = 0;
			isodir(&tmp, iso, i);
			iso->v[i].len = tmp.len;
			iso->v[i].lba = lba;
			lba += (uint32_t)(tmp.len / SECTOR);
		}
	for (i = 0; i < iso->n; i++)
		if (!S_ISDIR(iso->v[i].mode)) {
			iso->v[i].lba = lba;
			lba += (uint32_t)((iso->v[i].len + SECTOR - 1) / SECTOR);
		}
	isopaths(&paths, iso, put32le, false);
	assert(paths.len <= SECTOR);
	putzero(out, 16 * SECTOR);                      /* 6.2.1: the system area */
	isopvd(out, iso, label, lba, (uint32_t)paths.len);
	bufadd(out, "\377CD001\1", 7);                  /* 8.3: the terminator */
	putzero(out, SECTOR - 7);
	bufadd(out, paths.s, paths.len);
	putzero(out, SECTOR - paths.len);
	paths.len = 0;
	isopaths(&paths, iso, put32be, true);
	bufadd(out, paths.s, paths.len);
	putzero(out, SECTOR - paths.len);
	for (i = 0; i < iso->n; i++)
		if (S_ISDIR(iso->v[i].mode)) {
			assert(out->len == (size_t)iso->v[i].lba * SECTOR);
			isodir(out, iso, i);
		}
	for (i = 0; i < iso->n; i++)
		if (!S_ISDIR(iso->v[i].mode)) {
			assert(out->len == (size_t)iso->v[i].lba * SECTOR);
			if (iso->v[i].len)
				bufadd(out, iso->v[i].data, iso->v[i].len);
			if (out->len % SECTOR)
				putzero(out, SECTOR - out->len % SECTOR);
		}
	buffree(&paths);
	buffree(&tmp);
}

/* ---- 16. Guest data ----------------------------------------------------- */

/* What the guest is told: the files of cidata.iso.  On a stock cloud image
 * cloud-init reads user-data, which creates the user and runs boot.sh; on the
 * built image our unit runs boot.sh alone. */

/* Append text with each @NAME@ replaced: vars are name, value pairs, the values
 * JSON, which YAML reads as the same thing. */
static void
fillin(struct buf *out, const char *text, size_t len, const char *const *vars)
{
	const char *end = text + len, *p, *const *v;
	size_t n;

	for (; text < end; text = p) {
		if (!(p = memchr(text, '@', (size_t)(end - text))))
			p = end;
		bufadd(out, text, (size_t)(p - text));
		if (p == end)
			return;
		n = strspn(p + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
		for (v = vars; n && p[n + 1] == '@' && v[0] && (strlen(v[0]) != n || strncmp(v[0], p + 1, n) != 0); v += 2)
			;
		if (n && p[n + 1] == '@' && v[0]) {
			bufputs(out, v[1]);
			p += n + 2;
		} else
			bufputc(out, *p++);
	}
}

/* A text as a JSON string, for the life of the command. */
static const char *
quoted(const char *s)
{
	struct buf b = { 0 };

	yjsonstr(&b, s, strlen(s));
	return bufkeep(&b);
}

/* Lines as a JSON array of strings. */
static const char *
quotedlines(const char *s)
{
	struct buf b = { 0 };
	size_t n;

	for (; *s; s += n + (s[n] == '\n')) {
		n = strcspn(s, "\n");
		bufputc(&b, b.len ? ',' : '[');
		yjsonstr(&b, s, n);
	}
	bufputs(&b, b.len ? "]" : "[]");
	return bufkeep(&b);
}

/* Printable part of a comment: it ends up in a line of /etc/passwd. */
static const char *
printable(const char *s)
{
	char *r = keep("%s", s), *p = r;

	for (; *s; s++)
		if ((unsigned char)*s >= 0x20 && *s != 0x7f && *s != ':')
			*p++ = *s;
	*p = '\0';
	return r;
}

/* Is it a public key, "ALGORITHM BASE64 ..." in one line?  What is encoded begins
 * with the length (32 bits) and the name of the algorithm, RFC 4253 6.6. */
static bool
ispubkey(const char *key)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = strcspn(key, " "), i = 0;
	const char *s = key + n, *p;
	unsigned acc = 0, bits = 0;

	if (!n || !*s || strchr(key, '\n'))
		return false;
	while (i < n + 4) {
		if (!*++s || !(p = strchr(set, *s)))
			return false;
		acc = acc << 6 | (unsigned)(p - set);
		if ((bits += 6) < 8)
			continue;
		bits -= 8;
		if ((acc >> bits & 0xff) != (i < 3 ? 0 : i == 3 ? n : (unsigned char)key[i - 4]))
			return false;
		i++;
	}
	return true;
}

/* The authorized_keys of the guest's user. */
static const char *
pubkeys(const struct conf *c)
{
	const char *own = readline1(keep("%s/_config/user.pub", host.limahome));
	struct buf b = { 0 };
	const char *dir = keep("%s/.ssh", host.home ? host.home : ""), *key;
	struct dirent *d;
	DIR *dp;

	bufprintf(&b, "%s\n", own ? own : "");
	if (c->loadpubkeys && (dp = opendir(dir))) {
		while ((d = readdir(dp)))
			if (endswith(d->d_name, ".pub") && (key = readline1(keep("%s/%s", dir, d->d_name)))) {
				if (ispubkey(key))
					bufprintf(&b, "%s\n", key);
				else
					warn("%s/%s is left out: no public key in one line", dir, d->d_name);
			}
		closedir(dp);
	}
	return bufkeep(&b);
}

/* Of the theme Networks. */
static const char *netlease(const char *net, const char *mac, const char *inst);
static void nethosts(struct buf *b, const char *net, const char *tail);

/* The NICs of `networks`: for cloud-init into net, for boot.sh into env, and the
 * names of their neighbours into hosts. */
static void
guestnetworks(const struct conf *c, struct buf *net, struct buf *env, struct buf *hosts)
{
	const struct network *n = c->networks.v;
	const char *addr;
	size_t i;

	bufprintf(env, "LIMA_CIDATA_NETWORKS=%zu\n", c->networks.n);
	for (i = 0; i < c->networks.n; i++, n++) {
		addr = n->lima && *n->lima ? keep("%s/24", netlease(n->lima, n->mac, c->name)) : "";
		bufprintf(net, "  %s:\n    match:\n      macaddress: '%s'\n    set-name: %s\n    optional: true\n", n->interface, n->mac, n->interface);
		if (*addr)
			bufprintf(net, "    dhcp4: false\n    addresses: [%s]\n", addr);
		else
			bufprintf(net, "    dhcp4: true\n    dhcp4-overrides:\n      route-metric: %lld\n    dhcp-identifier: mac\n", n->metric);
		bufprintf(env, "LIMA_CIDATA_NETWORK_%zu_MAC=%s\nLIMA_CIDATA_NETWORK_%zu_INTERFACE=%s\nLIMA_CIDATA_NETWORK_%zu_ADDRESS=%s\n",
		    i, n->mac, i, n->interface, i, addr);
		if (*addr)
			nethosts(hosts, n->lima, " # lima network");
	}
}

/* Lines PREFIXkey=value.  The readers cut at line ends, so a value has none. */
static void
putpairs(struct buf *b, const char *prefix, const struct pairs *p)
{
	const char *s;
	size_t i;

	for (i = 0; i < p->n; i++) {
		bufprintf(b, "%s%s=", prefix, p->v[i].key);
		for (s = p->v[i].val ? p->v[i].val : ""; *s; s++)
			bufputc(b, *s == '\n' || *s == '\r' ? ' ' : *s);
		bufputc(b, '\n');
	}
}

static struct pair *
findpair(const struct pairs *p, const char *key)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		if (strcmp(p->v[i].key, key) == 0)
			return &p->v[i];
	return NULL;
}

static void
setpair(struct pairs *p, const char *key, const char *val)
{
	struct pair *old = findpair(p, key);

	if (old)
		old->val = val;
	else
		p->v[p->n++] = (struct pair){ key, val };
}

/* A proxy on the host's loopback is reached through the gateway.  No name is
 * looked up for it: that may take long where there is no network. */
static const char *
guestproxy(const char *url)
{
	const char *p = strstr(url, "://"), *end;
	char name[256] = "";
	size_t n;

	p = p ? p + 3 : url;
	end = p + strcspn(p, "/");
	n = strcspn(p, "@/");           /* user:password@ */
	if (p[n] == '@')
		p += n + 1;
	n = *p == '[' ? strcspn(p, "]") + 1 : strcspn(p, ":/");
	if (p + n > end)
		return url;
	gethostname(name, sizeof name - 1);
	if (!(n == 9 && strncasecmp(p, "localhost", 9) == 0) && !startswith(p, "127.") && !startswith(p, "[::1]") &&
	    !(n == strlen(name) && strncasecmp(p, name, n) == 0))
		return url;
	return keep("%.*s%s%s", (int)(p - url), url, slirpgateway, p + n);
}

/* The environment of the guest: `env`, and the proxies of this process
 * (spec/runtime.md 12.3).  Sorted by name. */
static struct pairs
guestenv(const struct conf *c)
{
	static const char *const names[][2] = {
		{ "ftp_proxy", "FTP_PROXY" }, { "http_proxy", "HTTP_PROXY" }, { "https_proxy", "HTTPS_PROXY" }, { "no_proxy", "NO_PROXY" },
	};
	struct pairs p = { yalloc(&perm, (c->env.n + 2 * LEN(names)) * sizeof *p.v), 0 };
	const char *val;
	struct pair *v;
	size_t i, k, n;

	for (i = 0; i < c->env.n; i++)
		setpair(&p, c->env.v[i].key, c->env.v[i].val ? c->env.v[i].val : "");
	for (i = 0; i < LEN(names); i++) {
		for (k = 0; k < 2; k++)
			if (c->proxyenv && (val = getenv(names[i][k])))
				setpair(&p, names[i][k], val);
		for (k = 0; k < 2; k++)
			if (i < 3 && (v = findpair(&p, names[i][k])))
				v->val = guestproxy(v->val);
		/* both cases, the lower one wins */
		for (k = 0; k < 2; k++)
			if ((v = findpair(&p, names[i][k])) && *v->val) {
				setpair(&p, names[i][1 - k], v->val);
				break;
			}
	}
	for (i = n = 0; i < p.n; i++)
		if (*p.v[i].val || !endswith(p.v[i].key, "_proxy"))
			p.v[n++] = p.v[i];
	p.n = n;
	qsort(p.v, p.n, sizeof *p.v, paircmp);
	return p;
}

/* The scripts and files of `provision`, and what boot.sh has to know of them. */
static void
guestprovision(const struct conf *c, struct iso *iso, struct buf *env)
{
	static const char *const modes[] = { "boot", "dependency", "data", "yq", "system", "user" };
	const struct provision *p = c->provisions.v;
	const char *text, *what;
	size_t i, k, dir, skip = 0;

	for (k = 0; k < LEN(modes); k++)
		for (dir = i = 0; i < c->provisions.n; i++) {
			if (strcmp(p[i].mode, modes[k]) != 0)
				continue;
			if (!dir)
				dir = isoadd(iso, 0, keep("provision.%s", modes[k]), S_IFDIR|0700, NULL, 0);
			what = k == 2 ? "DATAFILE" : "YQ_PROVISION";
			text = k == 2 ? p[i].content : k == 3 ? p[i].expression : p[i].script;
			text = text ? text : "";
			isoadd(iso, dir, keep("%08zu", i), S_IFREG | (k == 2 || k == 3 ? 0600 : 0700), text, strlen(text));
			skip |= p[i].skipdeps != 0 && k == 1;
			if (k != 2 && k != 3)
				continue;
			if (k == 2)
				bufprintf(env, "LIMA_CIDATA_%s_%08zu_OVERWRITE=%s\n", what, i, p[i].overwrite ? "true" : "false");
			else
				bufprintf(env, "LIMA_CIDATA_%s_%08zu_FORMAT=%s\n", what, i, p[i].format ? p[i].format : "auto");
			bufprintf(env, "LIMA_CIDATA_%s_%08zu_OWNER=%s\nLIMA_CIDATA_%s_%08zu_PATH=%s\nLIMA_CIDATA_%s_%08zu_PERMISSIONS=%s\n",
			    what, i, p[i].owner, what, i, p[i].path, what, i, p[i].permissions);
		}
	bufprintf(env, "LIMA_CIDATA_SKIP_DEFAULT_DEPENDENCY_RESOLUTION=%s\n", skip ? "1" : "");
}

/* hosts(5) lines of hostResolver.hosts; a name may stand for another one. */
static void
guesthosts(const struct conf *c, struct buf *b)
{
	const char *to;
	const struct pair *p;
	struct in6_addr a;
	size_t i, hops;

	for (i = 0; i < c->hosts.n; i++) {
		to = c->hosts.v[i].val;
		for (hops = 0; to && hops < 8 && (p = findpair(&c->hosts, to)); hops++)
			to = p->val;
		if (to && strcmp(to, "host.lima.internal") == 0)
			to = slirpgateway;
		if (to && (inet_pton(AF_INET, to, &a) == 1 || inet_pton(AF_INET6, to, &a) == 1))
			bufprintf(b, "%s %s # by limactl\n", to, c->hosts.v[i].key);
		else
			warn("hostResolver.hosts: %s leads to no address, so the guest does not get it", bq(c->hosts.v[i].key));
	}
}

/* The certificates of caCerts, one a file as update-ca-certificates(8) wants it. */
static void
guestcerts(const struct conf *c, struct iso *iso, struct buf *env)
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
	struct buf all = { 0 };
	const char *p, *e, *path;
	size_t i, n = 0, dir = 0;

	for (i = 0; i < c->cafiles.n; i++) {
		path = localpath(c->cafiles.v[i]);
		if (readfile(path, &all, 4 << 20) < 0)
			die("caCerts.files: read %s:", path);
		bufputc(&all, '\n');
	}
	for (i = 0; i < c->cacerts.n; i++)
		bufprintf(&all, "%s\n", c->cacerts.v[i]);
	for (p = all.s; p && (p = strstr(p, begin)) && (e = strstr(p, end)); p = e) {
		e += sizeof end - 1;
		if (!dir)
			dir = isoadd(iso, 0, "ca-certs", S_IFDIR|0755, NULL, 0);
		path = keep("%.*s\n", (int)(e - p), p);
		isoadd(iso, dir, keep("%04zu.crt", n++), S_IFREG|0644, path, strlen(path));
	}
	if (!n && (c->cafiles.n || c->cacerts.n))
		warn("caCerts: there is no certificate (PEM) in it");
	bufprintf(env, "LIMA_CIDATA_CA_REMOVE_DEFAULTS=%s\n", c->noca ? "1" : "");
	buffree(&all);
}

/* The options of sshfs for a mount.  A comma ends an option unless escaped,
 * fuse_opt_parse().  slave: SFTP on stdin and stdout; since sshfs 3.7.2 it is
 * called passive as well. */
static const char *
sshfsoptions(const struct mount *m)
{
	struct buf b = { 0 };
	const char *p;

	bufprintf(&b, "slave,allow_other%s%s%s,fsname=:", m->writable ? "" : ",ro", m->sshfscache ? "" : ",cache=no",
	    m->followsymlinks ? ",follow_symlinks" : "");
	for (p = m->location; *p; p++) {
		if (*p == ',' || *p == '\\')
			bufputc(&b, '\\');
		bufputc(&b, *p);
	}
	return bufkeep(&b);
}

/* What the guest mounts: the name of a device of 9p or virtiofs, or a path at its
 * SFTP server. */
static const char *
mounttag(const struct mount *m, enum mountkind k)
{
	if (k == MTSSHFS)
		return byopenssh(m) ? m->location : "/";
	return keep("lima-%s", hashhex(keep("%s:%s", m->location, m->mountpoint), 8));
}

/* What boot.sh is to mount: those that have a device of QEMU's. */
static void
guestmounts(const struct conf *c, struct buf *env)
{
	const struct mount *m = c->mounts.v;
	enum mountkind k = mountkind(c);
	const char *opts;
	size_t i, n = c->agent || k != MTSSHFS ? c->mounts.n : 0;

	bufprintf(env, "LIMA_CIDATA_MOUNTTYPE=%s\nLIMA_CIDATA_MOUNTS=%zu\n", mountkinds[k], n);
	for (i = 0; i < n; i++, m++) {
		if (k == MTSSHFS)
			opts = sshfsoptions(m);
		else if (k == MTVIRTIOFS)
			opts = m->writable ? "rw" : "ro";
		else
			opts = keep("%s,trans=virtio,version=%s,msize=%lld,cache=%s", m->writable ? "rw" : "ro", m->p9version, m->p9msize, m->p9cache);
		/* an empty mount point keeps the place, for the numbers are the ports' */
		bufprintf(env, "LIMA_CIDATA_MOUNTS_%zu_MOUNTPOINT=%s\nLIMA_CIDATA_MOUNTS_%zu_OPTIONS=%s\nLIMA_CIDATA_MOUNTS_%zu_TAG=%s\n",
		    i, m->lost ? "" : m->mountpoint, i, opts, i, mounttag(m, k));
		if (host.home && strcmp(m->location, host.home) == 0)
			bufprintf(env, "LIMA_CIDATA_HOSTHOME_MOUNTPOINT=%s\n", m->mountpoint);
	}
}

/* The additional disks, by whose serial numbers boot.sh finds them. */
static void
guestdisks(const struct conf *c, struct buf *env)
{
	const struct datadisk *d = c->disks.v;
	struct buf args = { 0 };
	size_t i, k;

	bufprintf(env, "LIMA_CIDATA_DISKS=%zu\n", c->disks.n);
	for (i = 0; i < c->disks.n; i++, d++) {
		args.len = 0;
		bufputs(&args, "");
		for (k = 0; k < d->fsargs.n; k++)
			bufprintf(&args, "%s%s", k ? " " : "", d->fsargs.v[k]);
		putpairs(env, keep("LIMA_CIDATA_DISK_%zu_", i), &(struct pairs){ (struct pair[]){
			{ "NAME", d->name }, { "DEVICE", keep("vd%c", 'b' + (int)(i % 25)) }, { "FORMAT", d->format ? "true" : "false" },
			{ "FSTYPE", d->fstype }, { "FSARGS", args.s } }, 5 });
	}
	buffree(&args);
}

/* The archive of an instance whose containerd is wanted, or NULL. */
static const char *
enginearchive(const struct conf *c)
{
	const char *path = keep("%s/nerdctl-full.tgz", c->dir);

	return (c->containerduser > 0 || c->containerdsystem > 0) && access(path, R_OK) == 0 ? path : NULL;
}

/* What boot.sh has to know of a configuration, in the names of spec/runtime.md
 * 5.4. */
static void
guestfacts(const struct conf *c, struct buf *env, const char *iid)
{
	size_t i;

	bufprintf(env,
	    "LIMA_CIDATA_IID=%s\nLIMA_CIDATA_NAME=%s\nLIMA_CIDATA_HOSTNAME=%s\nLIMA_CIDATA_USER=%s\n"
	    "LIMA_CIDATA_UID=%lld\nLIMA_CIDATA_COMMENT=%s\nLIMA_CIDATA_HOME=%s\nLIMA_CIDATA_SHELL=%s\n"
	    "LIMA_CIDATA_PLAIN=%s\nLIMA_CIDATA_PASSWORDLESS_SUDO=%s\nLIMA_CIDATA_TIMEZONE=%s\nLIMA_CIDATA_GUEST_INSTALL_PREFIX=%s\n"
	    "LIMA_CIDATA_SLIRP_GATEWAY=%s\nLIMA_CIDATA_SLIRP_DNS=%s\nLIMA_CIDATA_SLIRP_IP_ADDRESS=%s\nLIMA_CIDATA_VMTYPE=qemu\n",
	    iid, c->name, guesthostname(c->name), c->user, c->uid, printable(c->comment ? c->comment : ""), c->home, c->shell,
	    c->stock ? "1" : "", c->sudo ? "1" : "", c->timezone, c->prefix, slirpgateway, slirpdns, slirpaddress);
	bufprintf(env, "LIMA_CIDATA_UPGRADE_PACKAGES=%s\nLIMA_CIDATA_CONTAINERD_USER=%s\nLIMA_CIDATA_CONTAINERD_SYSTEM=%s\nLIMA_CIDATA_CONTAINERD_LAZY=%s\nLIMA_CIDATA_DNS=",
	    c->upgrade ? "1" : "", c->containerduser ? "1" : "", c->containerdsystem ? "1" : "", c->lazyengine ? "1" : "");
	for (i = 0; i < c->dns.n; i++)
		bufprintf(env, "%s%s", i ? " " : "", c->dns.v[i]);
	bufputc(env, '\n');
}

/* user-data; key and pub: of sshd, NULL in the text that is only to look at. */
static void
userdata(struct buf *b, const struct conf *c, const char *keys, const char *key, const char *pub)
{
	size_t len;
	const unsigned char *p = embedded("user-data.in", &len);
	const char *const vars[] = {
		"USER", quoted(c->user), "UID", keep("%lld", c->uid), "HOME", quoted(c->home), "SHELL", quoted(c->shell),
		"COMMENT", quoted(printable(c->comment ? c->comment : "")),
		"SUDO", quoted(c->sudo ? "ALL=(ALL) NOPASSWD:ALL" : "ALL=(ALL) ALL"), "SSHKEYS", quotedlines(keys),
		"HOSTKEY", quoted(keep("%s\n", key ? key : "")), "HOSTPUB", quoted(pub ? pub : ""), NULL,
	};

	fillin(b, (const char *)p, len, vars);
}

/* cloud-config.yaml in dir: user-data without sshd's keys and files, to look at. */
static int
writecloudconfig(const struct conf *c, const char *dir, const char *keys)
{
	struct buf b = { 0 };
	const char *end;
	int r;

	userdata(&b, c, keys, NULL, NULL);
	end = strstr(b.s, "\nssh_keys:");
	assert(end);
	r = writefile(keep("%s/cloud-config.yaml", dir), b.s, (size_t)(end + 1 - b.s), 0444);
	buffree(&b);
	return r;
}

/* Write cidata.iso into the instance directory. */
static int
writecidata(const struct conf *c)
{
	const char *hostname = guesthostname(c->name), *keys = pubkeys(c), *iid, *mac = macaddress(c->dir), *archive;
	const char *key = readline1(keep("%s/ssh_host_ed25519_key", c->dir));
	const char *pub = readline1(keep("%s/ssh_host_ed25519_key.pub", c->dir));
	struct buf user = { 0 }, net = { 0 }, env = { 0 }, meta = { 0 }, hosts = { 0 }, out = { 0 }, param = { 0 }, etc = { 0 };
	struct iso iso = { 0 };
	struct pairs pairs = guestenv(c);
	const unsigned char *p;
	unsigned char d[32];
	struct stat st;
	size_t len;
	int ret;

	(void)writecloudconfig(c, c->dir, keys);
	userdata(&user, c, keys, key, pub);
	bufprintf(&net,
	    "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: '%s'\n    set-name: eth0\n"
	    "    dhcp4: true\n    dhcp4-overrides:\n      route-metric: 200\n    dhcp-identifier: mac\n", mac);
	guestnetworks(c, &net, &env, &hosts);
	/* new only when what cloud-init acts on is new: limactl's new id at each
	 * boot makes cloud-init repeat its per-instance work */
	iid = keep("iid-%s", hashhex(keep("%s%s%s", user.s, net.s, c->dir), 8));
	bufprintf(&meta, "instance-id: %s\nlocal-hostname: %s\n", iid, hostname);
	guestfacts(c, &env, iid);
	guestmounts(c, &env);
	guestdisks(c, &env);
	/* by size and date boot.sh knows whether it has unpacked this one */
	if ((archive = enginearchive(c)) && stat(archive, &st) == 0)
		bufprintf(&env, "LIMA_CIDATA_CONTAINERD_ARCHIVE=%lld-%lld\n", (long long)st.st_size, (long long)st.st_mtime);
	guestprovision(c, &iso, &env);
	guesthosts(c, &hosts);
	guestcerts(c, &iso, &env);
	putpairs(&param, "PARAM_", &c->param);
	if (pairs.n) {
		bufputs(&etc, "#LIMA-START\n");
		putpairs(&etc, "", &pairs);
		bufputs(&etc, "#LIMA-END\n");
	}
	isoadd(&iso, 0, "param.env", S_IFREG|0600, param.s, param.len);
	isoadd(&iso, 0, "etc_environment", S_IFREG|0644, etc.s, etc.len);
	if (c->agent && (p = agentfor(c, &len))) {
		isoadd(&iso, 0, "lima-guestagent", S_IFREG|0755, p, len);
		sha256(p, len, d);      /* by which boot.sh knows that it has this one */
		bufprintf(&env, "LIMA_CIDATA_GUESTAGENT=%02x%02x%02x%02x\n", d[0], d[1], d[2], d[3]);
	}
	isoadd(&iso, 0, "meta-data", S_IFREG|0644, meta.s, meta.len);
	isoadd(&iso, 0, "user-data", S_IFREG|0600, user.s, user.len);
	isoadd(&iso, 0, "network-config", S_IFREG|0644, net.s, net.len);
	isoadd(&iso, 0, "lima.env", S_IFREG|0644, env.s, env.len);
	if (hosts.len)
		isoadd(&iso, 0, "hosts", S_IFREG|0644, hosts.s, hosts.len);
	p = embedded("boot.sh", &len);
	isoadd(&iso, 0, "boot.sh", S_IFREG|0755, p, len);
	isoadd(&iso, 0, "authorized_keys", S_IFREG|0644, keys, strlen(keys));
	if (key && pub) {
		key = keep("%s\n", key);
		pub = keep("%s\n", pub);
		isoadd(&iso, 0, "ssh_host_ed25519_key", S_IFREG|0600, key, strlen(key));
		isoadd(&iso, 0, "ssh_host_ed25519_key.pub", S_IFREG|0644, pub, strlen(pub));
	}
	isowrite(&iso, "cidata", &out);
	ret = writefile(keep("%s/cidata.iso", c->dir), out.s, out.len, 0600);
	free(iso.v);
	buffree(&user);
	buffree(&net);
	buffree(&env);
	buffree(&meta);
	buffree(&param);
	buffree(&etc);
	buffree(&hosts);
	buffree(&out);
	return ret;
}

/* ---- 17. ssh ------------------------------------------------------------ */

/* A new key pair at path; what is there stays. */
static void
sshkeygen(const char *path, const char *comment)
{
	struct args a = { 0 };

	if (access(path, F_OK) == 0)
		return;
	(void)unlink(keep("%s.tmp", path));
	(void)unlink(keep("%s.tmp.pub", path));
	argwords(&a, "ssh-keygen -q -t ed25519 -N");
	arg(&a, "%s", "");
	argopt(&a, "-C", "%s", comment);
	argopt(&a, "-f", "%s.tmp", path);
	runordie(a.v, NULL, "openssh-client (ssh-keygen)");
	/* the private half last: it is the one that says the pair is there */
	if (rename(keep("%s.tmp.pub", path), keep("%s.pub", path)) < 0 || rename(keep("%s.tmp", path), path) < 0)
		die("rename %s.tmp:", path);
	argsfree(&a);
}

/* The key all instances share, LIMA_HOME/_config/user, made once. */
static void
userkey(void)
{
	const char *dir = keep("%s/_config", host.limahome);
	int lock;

	needhome();
	if (!host.login)
		die("uid %ld has no entry in /etc/passwd, without which ssh refuses to run; add one: "
		    "echo 'me:x:%ld:%ld::%s:/bin/sh' >>/etc/passwd", (long)host.uid, (long)host.uid, (long)getgid(),
		    host.home ? host.home : "/tmp");
	if (access(keep("%s/user", dir), F_OK) == 0)
		return;
	if (mkdirs(dir, 0700) < 0)
		die("create %s:", dir);
	if ((lock = lockfile(dir, O_RDONLY|O_DIRECTORY, "the ssh key")) < 0)
		die("lock %s:", dir);
	sshkeygen(keep("%s/user", dir), "lima");
	close(lock);
}

/* A word inside double quotes of an ssh option or a systemd unit, where % begins
 * a token. */
static const char *
sshpath(const char *path)
{
	struct buf b = { 0 };

	bufputc(&b, '"');
	for (; *path; path++) {
		if (*path == '%' || *path == '"' || *path == '\\')
			bufputc(&b, *path == '%' ? '%' : '\\');
		bufputc(&b, *path);
	}
	bufputc(&b, '"');
	return bufkeep(&b);
}

static bool
cpuhasaes(void)
{
	struct buf b = { 0 };
	bool yes = readfile("/proc/cpuinfo", &b, 16 << 20) == 0 && strstr(b.s, " aes");

	buffree(&b);
	return yes;
}

/* An IdentityFile for each private key beside a ~/.ssh/X.pub. */
static void
identities(struct args *a)
{
	const char *dir = keep("%s/.ssh", host.home ? host.home : ""), *path;
	struct dirent *d;
	DIR *dp = opendir(dir);

	while (dp && (d = readdir(dp))) {
		if (!endswith(d->d_name, ".pub"))
			continue;
		path = keep("%s/%.*s", dir, (int)strlen(d->d_name) - 4, d->d_name);
		if (access(path, R_OK) == 0)
			arg(a, "IdentityFile=%s", sshpath(path));
	}
	if (dp)
		closedir(dp);
}

/* The options of spec/cli.md 9.4.3 in order, as Key=Value.  Three are replaced
 * in place: the host key is known and pinned. */
static void
sshoptions(struct args *a, const struct conf *c)
{
	struct args v = { 0 };
	struct buf ver = { 0 };
	long long version[2];
	const char *s;

	/* one run tells the version and whether GSSAPI is compiled in */
	argwords(&v, "ssh -o GSSAPIAuthentication=no -V");
	if (runerr(v.v, NULL, NULL, &ver) < 0)
		die("ssh: not found in PATH; install openssh-client");
	s = strstr(ver.s, "OpenSSH_");

	arg(a, "IdentityFile=%s", sshpath(keep("%s/_config/user", host.limahome)));
	if (c->loadpubkeys)
		identities(a);
	arg(a, "StrictHostKeyChecking=yes");
	arg(a, "UserKnownHostsFile=%s", sshpath(keep("%s/known_hosts", c->dir)));
	arg(a, "HostKeyAlias=%s", guesthostname(c->name));
	arg(a, "PreferredAuthentications=publickey");
	arg(a, "Compression=no");
	arg(a, "BatchMode=yes");
	arg(a, "IdentitiesOnly=yes");
	if (!strstr(ver.s, "Unsupported option"))
		arg(a, "GSSAPIAuthentication=no");
	if (s && dotted(s + strlen("OpenSSH_"), 2, version, NULL) == 2 && version[0] * 100 + version[1] >= 801)
		arg(a, "Ciphers=\"^%s\"", cpuhasaes() ? "aes128-gcm@openssh.com,aes256-gcm@openssh.com" : "chacha20-poly1305@openssh.com");
	arg(a, "User=%s", c->user);
	arg(a, "ControlMaster=auto");
	arg(a, "ControlPath=%s", sshpath(keep("%s/ssh.sock", c->dir)));
	arg(a, "ControlPersist=yes");
	if (c->forwardagent)
		arg(a, "ForwardAgent=yes");
	if (c->forwardx11)
		arg(a, "ForwardX11=yes");
	if (c->forwardx11trusted)
		arg(a, "ForwardX11Trusted=yes");
	argsfree(&v);
	buffree(&ver);
}

/* ssh.config and known_hosts of the instance. */
static int
writesshconfig(const struct conf *c, long long port)
{
	struct args o = { 0 };
	struct buf b = { 0 };
	const char *pub = readline1(keep("%s/ssh_host_ed25519_key.pub", c->dir)), *eq;
	size_t i;
	int ret;

	/* a known_hosts line without the comment, sshd(8) */
	if (pub) {
		size_t n = strcspn(pub, " ");
		n += pub[n] ? 1 + strcspn(pub + n + 1, " ") : 0;
		bufprintf(&b, "%s %.*s\n", guesthostname(c->name), (int)n, pub);
	}
	ret = writefile(keep("%s/known_hosts", c->dir), b.s ? b.s : "", b.len, 0600);
	b.len = 0;
	sshoptions(&o, c);
	bufprintf(&b, "# This SSH config file can be passed to `ssh -F`.\n"
	    "# It is written anew at each start of the instance; edits are lost.\n"
	    "# Example: ssh -F ");
	bufquote(&b, keep("%s/ssh.config", c->dir));
	bufprintf(&b, " %s\nHost %s\n", guesthostname(c->name), guesthostname(c->name));
	for (i = 0; i < o.n; i++) {
		eq = strchr(o.v[i], '=');
		if (strchr(o.v[i], '\n'))
			die("a line break in an ssh option: %s", bq(o.v[i]));
		bufprintf(&b, "  %.*s %s\n", (int)(eq - o.v[i]), o.v[i], eq + 1);
	}
	bufprintf(&b, "  Hostname 127.0.0.1\n  Port %lld\n", port);
	if (writefile(keep("%s/ssh.config", c->dir), b.s, b.len, 0600) < 0)
		ret = -1;
	argsfree(&o);
	buffree(&b);
	return ret;
}

/* A port of 127.0.0.1 that is free: want, or (0) any.  0 when it is taken. */
static long long
freeport(long long want)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)want) };
	socklen_t n = sizeof sa;
	int fd = socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, 0), on = 1;
	long long port = 0;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	/* as QEMU does: connections of the last run in TIME_WAIT do not count */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 1) == 0 &&
	    getsockname(fd, (struct sockaddr *)&sa, &n) == 0)
		port = ntohs(sa.sin_port);
	if (fd >= 0)
		close(fd);
	return port;
}

static long long
chooseport(const struct conf *c)
{
	long long port;

	if (c->sshport) {
		if (!freeport(c->sshport))
			die("port %lld of `ssh.localPort` is in use on 127.0.0.1; stop what uses it or choose another (0: any)", c->sshport);
		return c->sshport;
	}
	if (strcmp(c->name, deftemplate) == 0 && (port = freeport(defsshport)))
		return port;
	if (!(port = freeport(0)))
		die("no free port on 127.0.0.1:");
	return port;
}

/* connect(2) to a unix socket; -1 with errno.  Non-blocking when asked. */
static int
connectunix(const char *path, int flags)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, e;

	if (strlen(path) >= sizeof sa.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(sa.sun_path, path, strlen(path) + 1);
	if ((fd = socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|flags, 0)) < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
		return fd;
	e = errno;
	close(fd);
	errno = e;
	return -1;
}

/* A listening unix socket in place of whatever was there; mode by the umask. */
static int
listenunix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof sa.sun_path)
		die("%s is longer than a socket path may be (%zu); use a shorter LIMA_HOME", path, sizeof sa.sun_path - 1);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	(void)unlink(path);
	if ((fd = socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0)) < 0 ||
	    bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 16) < 0)
		die("listen on %s:", path);
	return fd;
}

/* The process that listens on a unix socket, 0 when nobody does, -1 when it is so
 * busy that its queue is full (connect(2): EAGAIN). */
static pid_t
socketowner(const char *path)
{
	struct ucred uc = { 0 };
	socklen_t n = sizeof uc;
	int fd = connectunix(path, SOCK_NONBLOCK);

	if (fd < 0)
		return errno == EAGAIN ? -1 : 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &n) < 0)
		uc.pid = 0;
	close(fd);
	return uc.pid;
}

/* Is it a master of ours?  SO_PEERCRED names whoever called listen(2), and a
 * user's ssh forks after that: only a master that stayed can be watched. */
static bool
ismaster(pid_t pid, const char *sshconfig)
{
	struct buf b = { 0 };
	char path[64];
	bool yes;
	size_t i;

	snprintf(path, sizeof path, "/proc/%ld/cmdline", (long)pid);
	if (readfile(path, &b, 65536) < 0)
		return false;
	for (i = 0; i < b.len; i++)
		if (!b.s[i])
			b.s[i] = ' ';
	yes = strstr(b.s, sshconfig) && strstr(b.s, "ControlMaster=yes") && strstr(b.s, " -N ");
	buffree(&b);
	return yes;
}

/* ---- 18. Disks ---------------------------------------------------------- */

/* LIMA_HOME/_disks: disks that instances attach by name.  NAME/datadisk is the
 * disk, NAME/in_use_by a link to the directory of the instance that has it.  Who
 * changes either holds the lock of the directory NAME.  A link to an instance
 * that does not run was left by a crash of the host and keeps nobody out. */

struct disk {
	const char *name, *dir, *file, *fmt, *lock;
	long long size;                 /* bytes, as the guest sees it */
	const char *owner;              /* directory of an instance, or NULL */
};

/* Look at a disk.  False when there is none of the name; why: what is wrong
 * with one that is there, or NULL. */
static bool
diskfind(struct disk *d, const char *name, const char **why)
{
	char owner[4096];
	ssize_t n;

	*why = NULL;
	*d = (struct disk){ .name = name, .dir = keep("%s/_disks/%s", host.limahome, name), .fmt = "" };
	d->file = keep("%s/datadisk", d->dir);
	d->lock = keep("%s/in_use_by", d->dir);
	if (badident(name) || access(d->file, F_OK) < 0)
		return false;
	if ((n = readlink(d->lock, owner, sizeof owner)) > 0)   /* by hand it may be a bare name */
		d->owner = keep(memchr(owner, '/', (size_t)n) ? "%.*s" : "./%.*s", (int)n, owner);
	*why = imageformat(d->file, &d->fmt, &d->size);
	return true;
}

/* Take the lock of a disk's directory, and look again. */
static int
disklock(struct disk *d, const char **why)
{
	int fd = lockfile(d->dir, O_RDONLY|O_DIRECTORY, keep("disk %s", d->name));

	if (fd < 0)
		die("lock %s:", d->dir);
	(void)diskfind(d, d->name, why);
	return fd;
}

/* Does the instance in this directory run, or is it being started? */
static bool
diskheld(const char *dir)
{
	int fd = open(dir, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
	bool held = fd >= 0 && (flock(fd, LOCK_SH|LOCK_NB) < 0 || lockholder(keep("%s/qemu.pid", dir)) ||
	    lockholder(keep("%s/ha.pid", dir)));

	if (fd >= 0)
		close(fd);
	return held;
}

/* Give back what an instance has. */
static void
diskrelease(const struct conf *c)
{
	const struct datadisk *v = c->disks.v;
	struct disk d;
	const char *why;
	size_t i;

	for (i = 0; i < c->disks.n; i++)
		if (diskfind(&d, v[i].name, &why) && d.owner && strcmp(d.owner, c->dir) == 0)
			(void)unlink(d.lock);
}

/* Take the disks of an instance, whose lock is held; dies without one of them. */
static void
diskattach(const struct conf *c)
{
	const struct datadisk *v = c->disks.v;
	struct disk d;
	const char *why;
	size_t i;
	int fd;

	for (i = 0; i < c->disks.n; i++) {
		if (diskfind(&d, v[i].name, &why)) {
			fd = disklock(&d, &why);
			if (!why && d.owner && strcmp(d.owner, c->dir) != 0 && diskheld(d.owner))
				why = keep("in use by instance %s", bq(strrchr(d.owner, '/') + 1));
			if (!why && d.owner)
				(void)unlink(d.lock);
			if (!why && symlink(c->dir, d.lock) < 0)
				why = keep("create %s: %s", d.lock, errtext(errno));
			close(fd);
		} else
			why = keep("it does not exist (`limactl disk create %s --size SIZE` makes it)", v[i].name);
		if (why) {
			diskrelease(c);
			die("could not attach disk %s: %s", bq(v[i].name), why);
		}
	}
}

/* ---- 19. Networks ------------------------------------------------------- */

/* networks.yaml, and networks of mode user-v2: VMs of one LIMA_HOME see each
 * other on a second NIC.  Such a network has no process of its own.  Each QEMU
 * owns a datagram socket LIMA_HOME/_networks/NET/MAC.in, below a directory that
 * only its user can enter, and sends its frames to MAC.out beside it; that one
 * is its host agent's, which passes a frame on to the .in of the address it is
 * for, or to all of them.  Names are looked up for each frame, so whoever dies
 * leaves nothing to repair.  QEMU's dgram netdev needs QEMU 7.2.
 *
 * Addresses are handed out here, not by DHCP: _networks/NET/leases has a line
 * ADDRESS MAC INSTANCE each, and cidata tells the guest. */

/* Read networks.yaml, made with defaults when it is missing, into *d, which the
 * caller frees.  The lock on _config, held until the command ends or saves. */
static int
networksload(struct ydoc *d)
{
	const char *path = networksfile(), *dir = keep("%s/_config", host.limahome);
	struct buf b = { 0 };
	struct ynode *nets;
	int lock;

	needhome();
	if (mkdirs(dir, 0700) < 0)
		die("create %s:", dir);
	if ((lock = lockfile(dir, O_RDONLY|O_DIRECTORY, "networks.yaml")) < 0)
		die("lock %s:", dir);
	if (access(path, F_OK) < 0)
		mustwrite(path, defnetworks, sizeof defnetworks - 1, 0644);
	if (readfile(path, &b, 1 << 20) < 0)
		die("read %s:", path);
	*d = (struct ydoc){ 0 };
	if (yparse(d, b.s, b.len) < 0)
		die("%s:%d:%d: %s", path, d->eline, d->ecol, d->err);
	if (d->root && d->root->kind != Y_MAP)
		die("%s: the file is no mapping", path);
	if ((nets = yget(d->root, "networks")) && nets->kind != Y_MAP && nets->kind != Y_NULL)
		die("%s: `networks` is no mapping", path);
	buffree(&b);
	return lock;
}

/* Write *d back and free it; lock is closed. */
static void
networksave(struct ydoc *d, int lock)
{
	struct buf b = { 0 };

	ywrite(d, &b);
	mustwrite(networksfile(), b.s, b.len, 0644);
	buffree(&b);
	yfree(d);
	close(lock);
}

#define NETBASE  "192.168.104.1"        /* gateway of the built-in network user-v2 (runtime.md 14.6) */
#define NETFIRST 3                      /* .1 and .2 are limactl's own on such a network */

static const char *
netdir(const char *net)
{
	return keep("%s/_networks/%s", host.limahome, net);
}

/* The path of a NIC's socket: which is "in" or "out". */
static const char *
netsock(const char *net, const char *mac, const char *which)
{
	char *m = keep("%s", mac), *p;
	const char *path;

	/* a colon would end a word in more than one place */
	for (p = m; *p; p++)
		if (*p == ':')
			*p = '-';
	path = keep("%s/%s.%s", netdir(net), m, which);
	if (strlen(path) >= UNIXPATHMAX)
		die("%s is longer than a socket path may be (%d); use a shorter LIMA_HOME or name of the network", path, UNIXPATHMAX - 1);
	return path;
}

/* The first address of a network, as a number in host order. */
static uint32_t
netaddress(const char *net)
{
	static const char *const keys[2] = { "gateway", "netmask" };
	struct in_addr v[2];
	struct ydoc d;
	int lock = networksload(&d), i;
	const struct ynode *n = yget(yget(d.root, "networks"), net), *g;

	if (!n && strcmp(net, "user-v2") != 0)
		die("network %s is not defined: `limactl network create %s` makes it", bq(net), net);

	/* what a network does not say is as in the built-in one */
	(void)inet_pton(AF_INET, NETBASE, &v[0]);
	(void)inet_pton(AF_INET, "255.255.255.0", &v[1]);
	for (i = 0; i < 2; i++)
		if ((g = yget(n, keys[i])) && g->kind == Y_STR && *g->s && inet_pton(AF_INET, g->s, &v[i]) != 1)
			die("%s: `%s` of network %s is no IPv4 address: %s", networksfile(), keys[i], bq(net), bq(g->s));
	yfree(&d);
	close(lock);
	return ntohl(v[0].s_addr & v[1].s_addr);
}

static const char *
netaddrtext(uint32_t addr)
{
	struct in_addr a = { htonl(addr) };
	char s[INET_ADDRSTRLEN];

	return keep("%s", inet_ntop(AF_INET, &a, s, sizeof s));
}

/* The address of a NIC, handed out once and kept while its instance exists. */
static const char *
netlease(const char *net, const char *mac, const char *inst)
{
	const char *dir = netdir(net), *file = keep("%s/leases", dir), *ret = NULL;
	struct buf in = { 0 }, out = { 0 };
	char *p, *line, *addr, *m, *name;
	uint32_t base = netaddress(net), n;
	bool used[255] = { false };
	struct in_addr a;
	mode_t mask = umask(077);       /* the host agent's leaves directories without x */
	int lock;

	if (mkdirs(dir, 0700) < 0 || chmod(dir, 0700) < 0)
		die("create %s:", dir);
	(void)umask(mask);
	if ((lock = lockfile(dir, O_RDONLY|O_DIRECTORY, "the network")) < 0)
		die("lock %s:", dir);
	(void)readfile(file, &in, 1 << 20);
	for (p = in.s; p && (line = strsep(&p, "\n")); ) {
		addr = nextword(&line);
		m = nextword(&line);
		if (!(name = nextword(&line)) || inet_pton(AF_INET, addr, &a) != 1)
			continue;
		n = ntohl(a.s_addr) - base;
		if (n >= LEN(used) || used[n] || access(instdir(name), F_OK) < 0)
			continue;
		if (strcmp(m, mac) == 0) {
			if (ret || strcmp(name, inst) != 0)
				continue;       /* the instance was renamed, or made anew */
			ret = keep("%s", addr);
		}
		used[n] = true;
		bufprintf(&out, "%s %s %s\n", addr, m, name);
	}
	if (!ret) {
		for (n = NETFIRST; n < LEN(used) && used[n]; n++)
			;
		if (n == LEN(used))
			die("network %s has no free address", bq(net));
		ret = netaddrtext(base + n);
		bufprintf(&out, "%s %s %s\n", ret, mac, inst);
		if (writefile(file, out.s, out.len, 0600) < 0)
			die("cannot write %s", file);
	}
	close(lock);
	buffree(&in);
	buffree(&out);
	return ret;
}

/* hosts(5) lines of all that have an address on a network, this VM included;
 * tail ends each. */
static void
nethosts(struct buf *b, const char *net, const char *tail)
{
	struct buf in = { 0 };
	char *p, *line, *addr, *name;

	(void)readfile(keep("%s/leases", netdir(net)), &in, 1 << 20);
	for (p = in.s; p && (line = strsep(&p, "\n")); ) {
		addr = nextword(&line);
		(void)nextword(&line);
		if ((name = nextword(&line)))
			bufprintf(b, "%s %s.internal%s\n", addr, guesthostname(name), tail);
	}
	buffree(&in);
}

/* Remove the sockets of an instance whose processes are dead. */
static void
netclean(const struct conf *c)
{
	const struct network *n = c->networks.v;
	size_t i;

	for (i = 0; i < c->networks.n; i++)
		if (n[i].lima && *n[i].lima) {
			(void)unlink(netsock(n[i].lima, n[i].mac, "in"));
			(void)unlink(netsock(n[i].lima, n[i].mac, "out"));
		}
}

/* ---- 20. SFTP server ---------------------------------------------------- */

/* `limactl sftp DIR`: the server of one mount, on stdin and stdout; the SFTP
 * protocol, version 3 (draft-ietf-secsh-filexfer-02), with the extensions of
 * OpenSSH that sshfs uses.
 *
 * The client is a guest, so whatever it sends is meant badly.  DIR is its root:
 * a path is resolved by openat2(2) beneath DIR's descriptor, which no .. and no
 * link leaves, whoever made it.  A file is changed through the descriptor that
 * came of it, a name through the descriptor of its directory.  On a read-only
 * mount what changes something is refused before it is looked at.  Lengths,
 * handles and replies are bounded.  Should all that fail, Landlock lets the
 * process open nothing but DIR, and seccomp leaves it the calls it needs.
 *
 * Requests are served in the order they come, as many as one read brought, and
 * the replies go out together: sshfs sends many before it waits for one. */

#define FXMAX (256 << 10)               /* longest packet, as with OpenSSH */
#define FXNAMES (64 << 10)              /* a directory reply ends after that much */
#define FXHANDLES 8192

enum fxtype {
	FXINIT = 1, FXVERSION, FXOPEN, FXCLOSE, FXREAD, FXWRITE, FXLSTAT, FXFSTAT, FXSETSTAT, FXFSETSTAT,
	FXOPENDIR, FXREADDIR, FXREMOVE, FXMKDIR, FXRMDIR, FXREALPATH, FXSTAT, FXRENAME, FXREADLINK, FXSYMLINK,
	FXSTATUS = 101, FXHANDLE, FXDATA, FXNAME, FXATTRS, FXEXTENDED = 200, FXEXTENDEDREPLY,
};
enum { FXSIZE = 1, FXOWNER = 2, FXMODE = 4, FXTIMES = 8 };        /* what attributes have */
#define FXMORE 0x80000000u
enum { FXREADABLE = 1, FXWRITABLE = 2, FXAPPEND = 4, FXCREAT = 8, FXTRUNC = 16, FXEXCL = 32 };

struct fxhandle { int fd; DIR *dir; uint32_t serial; bool used; };
struct fx {                             /* a server */
	int root;                       /* O_PATH of DIR */
	bool readonly, follow;
	uid_t uid, guestuid;            /* of the user who runs us, and as the guest sees it */
	gid_t gid, guestgid;
	struct fxhandle *h;
	size_t nh;
	uint32_t serial;
	struct buf out;                 /* replies that wait */
	bool gone;                      /* DIR was removed */
};
struct fxreq { const unsigned char *p; size_t n; int err; };    /* what is left of a request */
struct fxattr { uint32_t has, uid, gid, mode, atime, mtime; uint64_t size; };

static uint32_t
fxget32(struct fxreq *q)
{
	const unsigned char *p = q->p;

	if (q->n < 4) {
		q->err = EBADMSG;
		q->n = 0;
		return 0;
	}
	q->p += 4;
	q->n -= 4;
	return getbe32(p);
}

static uint64_t
fxget64(struct fxreq *q)
{
	uint64_t v = fxget32(q);

	return v << 32 | fxget32(q);
}

static const unsigned char *
fxgetstr(struct fxreq *q, size_t *len)
{
	const unsigned char *p;

	*len = fxget32(q);
	p = q->p;
	if (*len > q->n) {
		q->err = EBADMSG;
		*len = q->n;
	}
	q->p += *len;
	q->n -= *len;
	return p;
}

/* A string of the request that becomes one of ours. */
static void
fxgettext(struct fxreq *q, char out[PATH_MAX])
{
	size_t n;
	const unsigned char *p = fxgetstr(q, &n);

	if (!q->err && n >= PATH_MAX)
		q->err = ENAMETOOLONG;
	if (!q->err && memchr(p, '\0', n))
		q->err = EBADMSG;
	if (q->err)
		n = 0;
	memcpy(out, p, n);
	out[n] = '\0';
}

/* A path, made relative to the root. */
static void
fxgetpath(struct fxreq *q, char out[PATH_MAX])
{
	size_t n;

	fxgettext(q, out);
	n = strspn(out, "/");
	memmove(out, out + n, strlen(out + n) + 1);
	if (!*out)
		memcpy(out, ".", 2);
}

static struct fxattr
fxgetattr(struct fxreq *q)
{
	struct fxattr a = { .has = fxget32(q) };
	uint32_t i, n;
	size_t len;

	if (a.has & FXSIZE)
		a.size = fxget64(q);
	if (a.has & FXOWNER) {
		a.uid = fxget32(q);
		a.gid = fxget32(q);
	}
	if (a.has & FXMODE)
		a.mode = fxget32(q);
	if (a.has & FXTIMES) {
		a.atime = fxget32(q);
		a.mtime = fxget32(q);
	}
	if (a.has & FXMORE)
		for (i = 0, n = fxget32(q); i < n && !q->err; i++) {
			(void)fxgetstr(q, &len);
			(void)fxgetstr(q, &len);
		}
	if (a.has & FXSIZE && a.size > INT64_MAX)
		q->err = EFBIG;
	return a;
}

static void
fxset32(void *at, uint32_t v)
{
	v = htonl(v);
	memcpy(at, &v, 4);
}

static void
fxput64(struct buf *b, uint64_t v)
{
	put32be(b, (uint32_t)(v >> 32));
	put32be(b, (uint32_t)v);
}

static void
fxputstr(struct buf *b, const char *s)
{
	put32be(b, (uint32_t)strlen(s));
	bufputs(b, s);
}

static void
fxputattr(struct fx *s, const struct stat *st)
{
	struct buf *b = &s->out;

	put32be(b, FXSIZE|FXOWNER|FXMODE|FXTIMES);
	fxput64(b, (uint64_t)st->st_size);
	put32be(b, st->st_uid == s->uid ? s->guestuid : st->st_uid);
	put32be(b, st->st_gid == s->gid ? s->guestgid : st->st_gid);
	put32be(b, st->st_mode);
	put32be(b, (uint32_t)st->st_atime);
	put32be(b, (uint32_t)st->st_mtime);
}

/* Begin a reply; its length comes when the request is done. */
static void
fxreply(struct fx *s, enum fxtype t, uint32_t id)
{
	put32be(&s->out, 0);
	bufputc(&s->out, t);
	put32be(&s->out, id);
}

static int
fxfail(int e)
{
	errno = e;
	return -1;
}

/* The path beneath the root, opened; -1 with errno. */
static int
fxopen(struct fx *s, const char *path, int flags, mode_t mode)
{
	struct stat st;

	const struct { uint64_t flags, mode, resolve; } how = {         /* struct open_how, openat2(2) */
		(uint64_t)(flags|O_CLOEXEC) & ~(uint64_t)O_LARGEFILE, flags & O_CREAT ? mode : 0,
		0x08 /* RESOLVE_BENEATH */ | 0x02 /* RESOLVE_NO_MAGICLINKS */,
	};
	int fd, tries = 0;

	/* EAGAIN: something was renamed while it walked over a .. */
	do
		fd = (int)syscall(SYS_openat2, s->root, path, &how, sizeof how);
	while (fd < 0 && errno == EAGAIN && tries++ < 32);
	if (fd < 0 && errno == ENOENT) {
		s->gone = fstat(s->root, &st) == 0 && st.st_nlink == 0;
		errno = ENOENT;
	}
	return fd < 0 && errno == EXDEV ? fxfail(EACCES) : fd;  /* it led out */
}

/* The thing itself, not opened: for what asks or changes its attributes. */
static int
fxlook(struct fx *s, const char *path, bool follow)
{
	return fxopen(s, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
}

/* A regular file, opened; nothing else is, for a device or a fifo may block or
 * do things when it is. */
static int
fxfile(struct fx *s, const char *path, int flags, mode_t mode)
{
	struct stat st;
	int fd, follow = s->follow ? 0 : O_NOFOLLOW;

	if ((fd = fxlook(s, path, s->follow)) >= 0) {
		if (fstat(fd, &st) < 0)
			st.st_mode = 0;
		close(fd);
		if (!S_ISREG(st.st_mode))
			return fxfail(S_ISDIR(st.st_mode) ? EISDIR : S_ISLNK(st.st_mode) ? ELOOP : EOPNOTSUPP);
	}
	if ((fd = fxopen(s, path, flags|O_NONBLOCK|O_NOCTTY|follow, mode)) < 0)
		return -1;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {       /* changed meanwhile */
		close(fd);
		return fxfail(EOPNOTSUPP);
	}
	return fd;
}

/* The directory of a path and, in *name, the last part of it, which stands in
 * path.  A call with these two can reach no other directory. */
static int
fxparent(struct fx *s, char path[PATH_MAX], const char **name)
{
	size_t n = strlen(path);
	char *slash;

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
	slash = strrchr(path, '/');
	*name = slash ? slash + 1 : path;
	if (!**name || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0)
		return fxfail(EBUSY);
	if (slash)
		*slash = '\0';
	return fxopen(s, slash ? path : ".", O_PATH|O_DIRECTORY, 0);
}

/* Close up to two descriptors, keep errno, pass r on. */
static int
fxdone(int r, int fd, int fd2)
{
	int e = errno;

	if (fd >= 0)
		close(fd);
	if (fd2 >= 0)
		close(fd2);
	errno = e;
	return r;
}

/* chmod of a descriptor, which may be O_PATH. */
static int
fxchmod(int fd, const struct stat *st, mode_t mode)
{
	char path[40];

	if (S_ISLNK(st->st_mode))
		return fxfail(EOPNOTSUPP);
	/* the guest mounts nosuid; on the host such a bit would only serve others */
	mode &= S_ISDIR(st->st_mode) ? 03777 : 01777;
	if (syscall(452 /* fchmodat2 */, fd, "", mode, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != ENOSYS && errno != EPERM)
		return -1;
	/* before Linux 6.6: this name leads to the descriptor's file and no other */
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return fchmodat(AT_FDCWD, path, mode, 0);
}

/* Set what a says on a descriptor, which may be O_PATH unless a size is set. */
static int
fxsetattr(const struct fx *s, int fd, const struct fxattr *a)
{
	struct timespec t[2] = { { .tv_sec = (time_t)a->atime }, { .tv_sec = (time_t)a->mtime } };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	/* SFTP knows whole seconds: what is in this second is right already */
	if (t[0].tv_sec == st.st_atim.tv_sec)
		t[0].tv_nsec = UTIME_OMIT;
	if (t[1].tv_sec == st.st_mtim.tv_sec)
		t[1].tv_nsec = UTIME_OMIT;
	if (a->has & FXSIZE && ftruncate(fd, (off_t)a->size) < 0)
		return -1;
	if (a->has & FXMODE && fxchmod(fd, &st, a->mode) < 0)
		return -1;
	if (a->has & FXTIMES && utimensat(fd, "", t, AT_EMPTY_PATH) < 0)
		return -1;
	if (a->has & FXOWNER)
		return fchownat(fd, "", a->uid == s->guestuid ? s->uid : (uid_t)a->uid,
		    a->gid == s->guestgid ? s->gid : (gid_t)a->gid, AT_EMPTY_PATH);
	return 0;
}

/* ---- handles ---- */

/* Give fd a handle and reply with it.  Takes fd. */
static int
fxhandlenew(struct fx *s, int fd, DIR *dir, uint32_t id)
{
	struct fxhandle *h;
	size_t i;

	for (i = 0; i < s->nh && s->h[i].used; i++)
		;
	if (i == s->nh && i < FXHANDLES) {
		s->h = xrealloc(s->h, s->nh = s->nh * 2 + 64, sizeof *s->h);
		memset(s->h + i, 0, (s->nh - i) * sizeof *s->h);
	}
	if (i == s->nh) {
		if (dir)
			closedir(dir);
		else
			close(fd);
		return fxfail(EMFILE);
	}
	h = &s->h[i];
	*h = (struct fxhandle){ fd, dir, s->serial++, true };
	fxreply(s, FXHANDLE, id);
	put32be(&s->out, 8);
	put32be(&s->out, (uint32_t)i);
	put32be(&s->out, h->serial);
	return 1;
}

static struct fxhandle *
fxgethandle(struct fx *s, struct fxreq *q)
{
	struct fxreq h = { 0 };
	uint32_t i, serial;

	h.p = fxgetstr(q, &h.n);
	i = fxget32(&h);
	serial = fxget32(&h);
	if (!q->err && (h.err || h.n || i >= s->nh || !s->h[i].used || s->h[i].serial != serial))
		q->err = EBADF;
	return q->err ? NULL : &s->h[i];
}

/* ---- requests ---- */

/* Each takes what the request has, and returns 0: done, the answer is a status;
 * 1: it has put an answer into s->out; -1: errno says why not.  All of a request
 * is read, and q->err looked at, before anything is done. */

static int
fxdoopen(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX];
	struct fxattr a;
	uint32_t f;
	int fd, flags;

	fxgetpath(q, path);
	f = fxget32(q);
	a = fxgetattr(q);
	if (q->err)
		return fxfail(q->err);
	if (s->readonly && f & ~(uint32_t)FXREADABLE)
		return fxfail(EROFS);
	flags = f & FXWRITABLE ? f & FXREADABLE ? O_RDWR : O_WRONLY : O_RDONLY;
	flags |= (f & FXAPPEND ? O_APPEND : 0) | (f & FXCREAT ? O_CREAT : 0);
	flags |= (f & FXTRUNC ? O_TRUNC : 0) | (f & FXEXCL && f & FXCREAT ? O_EXCL : 0);
	fd = fxfile(s, path, flags, a.has & FXMODE ? a.mode & 01777 : 0644);
	return fd < 0 ? -1 : fxhandlenew(s, fd, NULL, id);
}

static int
fxdoclose(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);

	(void)id;
	if (!h)
		return fxfail(q->err);
	h->used = false;
	return h->dir ? closedir(h->dir) : close(h->fd);
}

static int
fxdoread(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);
	uint64_t at = fxget64(q);
	uint32_t len = fxget32(q);
	size_t start = s->out.len;
	ssize_t n;

	if (q->err)
		return fxfail(q->err);
	if (len > FXMAX - 1024)
		len = FXMAX - 1024;
	fxreply(s, FXDATA, id);
	put32be(&s->out, 0);
	bufgrow(&s->out, len);
	if (h->dir || at > INT64_MAX)
		n = fxfail(EINVAL);
	else
		n = pread(h->fd, s->out.s + s->out.len, len, (off_t)at);
	if (n <= 0) {
		s->out.len = start;
		return n < 0 ? -1 : fxfail(ENODATA);
	}
	fxset32(s->out.s + s->out.len - 4, (uint32_t)n);
	s->out.len += (size_t)n;
	return 1;
}

static int
fxdowrite(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);
	uint64_t at = fxget64(q);
	size_t len;
	const unsigned char *p = fxgetstr(q, &len);
	ssize_t n;

	(void)id;
	if (q->err)
		return fxfail(q->err);
	if (h->dir || at > INT64_MAX - len)
		return fxfail(EINVAL);
	for (; len; len -= (size_t)n, p += n, at += (uint64_t)n)
		if ((n = pwrite(h->fd, p, len, (off_t)at)) <= 0)
			return n < 0 ? -1 : fxfail(EIO);
	return 0;
}

/* stat of a path or a handle.  ours: fd is closed. */
static int
fxstat(struct fx *s, int fd, uint32_t id, bool ours)
{
	struct stat st;
	int r = fstat(fd, &st);

	if (r == 0) {
		fxreply(s, FXATTRS, id);
		fxputattr(s, &st);
		r = 1;
	}
	return fxdone(r, ours ? fd : -1, -1);
}

static int
fxpathstat(struct fx *s, struct fxreq *q, uint32_t id, bool follow)
{
	char path[PATH_MAX];
	int fd;

	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	fd = fxlook(s, path, follow);
	return fd < 0 ? -1 : fxstat(s, fd, id, true);
}

static int
fxdostat(struct fx *s, struct fxreq *q, uint32_t id)
{
	return fxpathstat(s, q, id, true);
}

static int
fxdolstat(struct fx *s, struct fxreq *q, uint32_t id)
{
	return fxpathstat(s, q, id, false);
}

static int
fxdofstat(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);

	return h ? fxstat(s, h->fd, id, false) : fxfail(q->err);
}

static int
fxdosetstat(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX];
	struct fxattr a;
	int fd;

	(void)id;
	fxgetpath(q, path);
	a = fxgetattr(q);
	if (q->err)
		return fxfail(q->err);
	fd = a.has & FXSIZE ? fxfile(s, path, O_WRONLY, 0) : fxlook(s, path, s->follow);
	return fd < 0 ? -1 : fxdone(fxsetattr(s, fd, &a), fd, -1);
}

static int
fxdofsetstat(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);
	struct fxattr a = fxgetattr(q);

	(void)id;
	return q->err ? fxfail(q->err) : fxsetattr(s, h->fd, &a);
}

static int
fxdoopendir(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX];
	DIR *dir;
	int fd;

	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxopen(s, path, O_RDONLY|O_DIRECTORY, 0)) < 0)
		return -1;
	if (!(dir = fdopendir(fd)))
		return fxdone(-1, fd, -1);
	return fxhandlenew(s, fd, dir, id);
}

static int
fxdoreaddir(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);
	size_t start = s->out.len, count;
	struct dirent *d;
	struct stat st;
	uint32_t n = 0;

	if (!h || !h->dir)
		return fxfail(h ? EBADF : q->err);
	fxreply(s, FXNAME, id);
	count = s->out.len;
	put32be(&s->out, 0);
	while (s->out.len - start < FXNAMES && (d = readdir(h->dir))) {
		/* the root's .. is outside */
		if (fstatat(h->fd, strcmp(d->d_name, "..") == 0 ? "." : d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;       /* gone meanwhile */
		fxputstr(&s->out, d->d_name);
		fxputstr(&s->out, d->d_name);   /* the line of ls -l, which nobody shows */
		fxputattr(s, &st);
		n++;
	}
	if (!n) {
		s->out.len = start;
		return fxfail(ENODATA);
	}
	fxset32(s->out.s + count, n);
	return 1;
}

/* A request whose only word is a path: what is done to its name. */
static int
fxunlink(struct fx *s, struct fxreq *q, int flag)
{
	char path[PATH_MAX];
	const char *name;
	int fd;

	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxparent(s, path, &name)) < 0)
		return -1;
	return fxdone(unlinkat(fd, name, flag), fd, -1);
}

static int
fxdoremove(struct fx *s, struct fxreq *q, uint32_t id)
{
	(void)id;
	return fxunlink(s, q, 0);
}

static int
fxdormdir(struct fx *s, struct fxreq *q, uint32_t id)
{
	(void)id;
	return fxunlink(s, q, AT_REMOVEDIR);
}

static int
fxdomkdir(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX];
	const char *name;
	struct fxattr a;
	int fd;

	(void)id;
	fxgetpath(q, path);
	a = fxgetattr(q);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxparent(s, path, &name)) < 0)
		return -1;
	return fxdone(mkdirat(fd, name, a.has & FXMODE ? a.mode & 03777 : 0755), fd, -1);
}

static void
fxname(struct fx *s, const char *name, uint32_t id)
{
	fxreply(s, FXNAME, id);
	put32be(&s->out, 1);
	fxputstr(&s->out, name);
	fxputstr(&s->out, name);
	put32be(&s->out, 0);
}

/* What a path is called from the root; nothing is looked at. */
static int
fxdorealpath(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX], out[PATH_MAX + 1] = "", *p = path, *part;

	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	while ((part = strsep(&p, "/")))
		if (strcmp(part, "..") == 0)
			*(strrchr(out, '/') ? strrchr(out, '/') : out) = '\0';
		else if (*part && strcmp(part, ".") != 0)
			snprintf(out + strlen(out), sizeof out - strlen(out), "/%s", part);
	fxname(s, *out ? out : "/", id);
	return 1;
}

/* The text of a link as it stands: sshfs shows it, and the guest follows it in
 * the guest. */
static int
fxdoreadlink(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxlook(s, path, false)) < 0)
		return -1;
	if ((n = readlinkat(fd, "", path, sizeof path - 1)) < 0)
		return fxdone(errno == ENOENT ? fxfail(EINVAL) : -1, fd, -1);   /* ENOENT: no link */
	path[n] = '\0';
	fxname(s, path, id);
	return fxdone(1, fd, -1);
}

/* What two names are given to: from and to are a directory and a name each. */
static int
fxpair(struct fx *s, struct fxreq *q, int (*fn)(int, const char *, int, const char *))
{
	char from[PATH_MAX], to[PATH_MAX];
	const char *a, *b;
	int fd, fd2;

	fxgetpath(q, from);
	fxgetpath(q, to);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxparent(s, from, &a)) < 0)
		return -1;
	if ((fd2 = fxparent(s, to, &b)) < 0)
		return fxdone(-1, fd, -1);
	return fxdone(fn(fd, a, fd2, b), fd, fd2);
}

/* Version 3 has a rename that replaces nothing. */
static int
fxmove(int fd, const char *a, int fd2, const char *b)
{
	struct stat st;

	if (syscall(SYS_renameat2, fd, a, fd2, b, 1 /* RENAME_NOREPLACE */) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	/* a file system that does not know the flag */
	if (fstatat(fd2, b, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return fxfail(EEXIST);
	return renameat(fd, a, fd2, b);
}

static int
fxlink(int fd, const char *a, int fd2, const char *b)
{
	return linkat(fd, a, fd2, b, 0);
}

static int
fxdorename(struct fx *s, struct fxreq *q, uint32_t id)
{
	(void)id;
	return fxpair(s, q, fxmove);
}

static int
fxposixrename(struct fx *s, struct fxreq *q, uint32_t id)
{
	(void)id;
	return fxpair(s, q, renameat);
}

static int
fxhardlink(struct fx *s, struct fxreq *q, uint32_t id)
{
	(void)id;
	return fxpair(s, q, fxlink);
}

/* OpenSSH, and so everybody, has the two words of the draft the other way round. */
static int
fxdosymlink(struct fx *s, struct fxreq *q, uint32_t id)
{
	char text[PATH_MAX], path[PATH_MAX];
	const char *name;
	int fd;

	(void)id;
	fxgettext(q, text);
	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxparent(s, path, &name)) < 0)
		return -1;
	return fxdone(symlinkat(text, fd, name), fd, -1);
}

static int
fxfsync(struct fx *s, struct fxreq *q, uint32_t id)
{
	struct fxhandle *h = fxgethandle(s, q);

	(void)id;
	return h ? fsync(h->fd) : fxfail(q->err);
}

static int
fxstatvfs(struct fx *s, struct fxreq *q, uint32_t id)
{
	char path[PATH_MAX];
	struct statvfs v;
	int fd, r;

	fxgetpath(q, path);
	if (q->err)
		return fxfail(q->err);
	if ((fd = fxlook(s, path, true)) < 0)
		return -1;
	if ((r = fstatvfs(fd, &v)) == 0) {
		const uint64_t w[] = { v.f_bsize, v.f_frsize, v.f_blocks, v.f_bfree, v.f_bavail, v.f_files, v.f_ffree, v.f_favail,
		    0, s->readonly || v.f_flag & ST_RDONLY, v.f_namemax };
		fxreply(s, FXEXTENDEDREPLY, id);
		for (r = 0; r < (int)LEN(w); r++)
			fxput64(&s->out, w[r]);
		r = 1;
	}
	return fxdone(r, fd, -1);
}

static const struct fxop {
	int (*fn)(struct fx *, struct fxreq *, uint32_t id);
	bool changes;                   /* refused on a read-only mount */
} fxops[] = {
	[FXOPEN] = { fxdoopen, false },         [FXCLOSE] = { fxdoclose, false },
	[FXREAD] = { fxdoread, false },         [FXWRITE] = { fxdowrite, true },
	[FXLSTAT] = { fxdolstat, false },       [FXFSTAT] = { fxdofstat, false },
	[FXSETSTAT] = { fxdosetstat, true },    [FXFSETSTAT] = { fxdofsetstat, true },
	[FXOPENDIR] = { fxdoopendir, false },   [FXREADDIR] = { fxdoreaddir, false },
	[FXREMOVE] = { fxdoremove, true },      [FXMKDIR] = { fxdomkdir, true },
	[FXRMDIR] = { fxdormdir, true },        [FXREALPATH] = { fxdorealpath, false },
	[FXSTAT] = { fxdostat, false },         [FXRENAME] = { fxdorename, true },
	[FXREADLINK] = { fxdoreadlink, false }, [FXSYMLINK] = { fxdosymlink, true },
};
static const struct { const char *name, *version; struct fxop op; } fxexts[] = {
	{ "posix-rename@openssh.com", "1", { fxposixrename, true } },
	{ "hardlink@openssh.com",     "1", { fxhardlink, true } },
	{ "fsync@openssh.com",        "1", { fxfsync, false } },
	{ "statvfs@openssh.com",      "2", { fxstatvfs, false } },
};

static void
fxversion(struct fx *s)
{
	size_t i;

	put32be(&s->out, 0);
	bufputc(&s->out, FXVERSION);
	put32be(&s->out, 3);
	for (i = 0; i < LEN(fxexts); i++) {
		fxputstr(&s->out, fxexts[i].name);
		fxputstr(&s->out, fxexts[i].version);
	}
}

/* The answer of a request that has no other.  What has no number of its own in
 * version 3 gets one of a later version, which sshfs shows as an I/O error;
 * 4 it shows as "Operation not permitted". */
static void
fxstatus(struct fx *s, uint32_t id, int e)
{
	static const struct { int e; uint32_t code; } t[] = {
		{ 0, 0 }, { ENODATA, 1 }, { ENOENT, 2 }, { ENOTDIR, 2 }, { ENAMETOOLONG, 2 }, { ELOOP, 2 },
		{ EACCES, 3 }, { EPERM, 3 }, { EROFS, 3 }, { EBADMSG, 5 },
		{ ENOSYS, 8 }, { EOPNOTSUPP, 8 }, { EIO, 13 }, { ENOSPC, 14 }, { EDQUOT, 15 },
	};
	size_t i;

	for (i = 0; i < LEN(t) && t[i].e != e; i++)
		;
	fxreply(s, FXSTATUS, id);
	put32be(&s->out, i < LEN(t) ? t[i].code : 4);
	fxputstr(&s->out, e ? strerror(e) : "");
	fxputstr(&s->out, "");
}

/* Serve one packet (without its length): the answer is appended to s->out. */
static void
fxpacket(struct fx *s, const unsigned char *p, size_t n)
{
	struct fxreq q = { p, n, 0 };
	const struct fxop *op = NULL;
	size_t start = s->out.len, i, len;
	const unsigned char *w;
	uint32_t id;
	unsigned t;
	int r;

	if (!n)
		return;
	t = *q.p++;
	q.n--;
	if (t == FXINIT)
		fxversion(s);
	else {
		id = fxget32(&q);
		if (t < LEN(fxops) && fxops[t].fn)
			op = &fxops[t];
		if (t == FXEXTENDED)
			for (w = fxgetstr(&q, &len), i = 0; i < LEN(fxexts); i++)
				if (strlen(fxexts[i].name) == len && memcmp(fxexts[i].name, w, len) == 0)
					op = &fxexts[i].op;
		r = q.err ? fxfail(q.err) : !op ? fxfail(EOPNOTSUPP) :
		    s->readonly && op->changes ? fxfail(EROFS) : op->fn(s, &q, id);
		if (r <= 0)
			fxstatus(s, id, r < 0 ? errno : 0);
	}
	fxset32(s->out.s + start, (uint32_t)(s->out.len - start - 4));
}

/* ---- confinement ---- */

/* Let the process open nothing but what is beneath root, see landlock(7).
 * False when the kernel cannot.  The numbers are those of linux/landlock.h. */
static bool
fxlandlock(int root, bool readonly)
{
	struct { uint64_t fs, net, scoped; } all = { 0x1fff, 3, 3 };
	struct __attribute__((packed)) { uint64_t fs; int32_t fd; } rule = { 0x0c, root };      /* read files, directories */
	long abi = syscall(444, NULL, 0, 1);
	int fd;
	bool ok;

	/* the first version knows no rename between directories, and forbids it */
	if (abi < 1 || (abi < 2 && !readonly))
		return false;
	all.fs |= (abi >= 2 ? 1 << 13 : 0) | (abi >= 3 ? 1 << 14 : 0) | (abi >= 5 ? 1 << 15 : 0);
	if (!readonly)
		/* write, remove, make directories, files and links; refer; truncate */
		rule.fs |= (0x02 | 0x10 | 0x20 | 0x80 | 0x100 | 0x1000 | 1 << 13 | 1 << 14) & all.fs;
	if ((fd = (int)syscall(444, &all, abi >= 6 ? 24 : abi >= 4 ? 16 : 8, 0)) < 0)
		return false;
	ok = syscall(445, fd, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &rule, 0) == 0 && syscall(446, fd, 0) == 0;
	close(fd);
	return ok;
}

#if defined(__x86_64__)
#define FXARCH 0xc000003e
#elif defined(__aarch64__)
#define FXARCH 0xc00000b7
#elif defined(__arm__)
#define FXARCH 0x40000028
#elif defined(__riscv)
#define FXARCH 0xc00000f3
#elif defined(__powerpc64__)
#define FXARCH 0xc0000015
#elif defined(__s390x__)
#define FXARCH 0x80000016
#endif

struct insn { uint16_t code; uint8_t yes, no; uint32_t k; };     /* struct sock_filter, seccomp(2) */

static bool
seccomp(const struct insn *f, unsigned short n)
{
	const struct { unsigned short n; const struct insn *f; } prog = { n, f };

	return prctl(PR_SET_SECCOMP, 2 /* SECCOMP_MODE_FILTER */, &prog) == 0;
}

/* Refuse every system call but those in the table: no exec, socket, fork, mount,
 * ptrace.  ENOSYS and not death, for a C library may try one it can do without. */
static bool
fxseccomp(void)
{
	static const int calls[] = {
		SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_close,
		SYS_openat2, SYS_getdents64, SYS_ftruncate, SYS_fsync, SYS_mkdirat, SYS_unlinkat, SYS_linkat, SYS_symlinkat,
		SYS_readlinkat, SYS_renameat2, SYS_fchmodat, 452 /* fchmodat2 */, SYS_fchownat, SYS_utimensat,
		SYS_fstat, SYS_statx, SYS_fstatfs, SYS_fcntl, SYS_ppoll, SYS_futex, SYS_restart_syscall,
		SYS_brk, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_getrandom, SYS_clock_gettime, SYS_getpid,
		SYS_gettid, SYS_tgkill, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack,
		SYS_sched_yield, SYS_exit, SYS_exit_group,
#ifdef SYS_renameat
		SYS_renameat,
#endif
#ifdef SYS_newfstatat
		SYS_newfstatat,
#endif
#ifdef SYS_mmap
		SYS_mmap,
#endif
#ifdef SYS_poll
		SYS_poll,
#endif
		/* and what 32-bit machines have for some of these */
#ifdef SYS_mmap2
		SYS_mmap2,
#endif
#ifdef SYS__llseek
		SYS__llseek,
#endif
#ifdef SYS_fstat64
		SYS_fstat64,
#endif
#ifdef SYS_fstatat64
		SYS_fstatat64,
#endif
#ifdef SYS_fstatfs64
		SYS_fstatfs64,
#endif
#ifdef SYS_fcntl64
		SYS_fcntl64,
#endif
#ifdef SYS_ftruncate64
		SYS_ftruncate64,
#endif
#ifdef SYS_clock_gettime64
		SYS_clock_gettime64,
#endif
#ifdef SYS_utimensat_time64
		SYS_utimensat_time64,
#endif
	};
	enum { N = LEN(calls), ENTRY = 4 };
	struct insn f[ENTRY + N + 2];
	size_t i;

	_Static_assert(N < 255, "a jump is a byte");
#ifndef FXARCH
	return false;
#else
	f[0] = (struct insn){ 0x20, 0, 0, 4 };                  /* load the architecture */
	f[1] = (struct insn){ 0x15, 1, 0, FXARCH };             /* ours? */
	f[2] = (struct insn){ 0x06, 0, 0, 0x00050000 | ENOSYS };
	f[3] = (struct insn){ 0x20, 0, 0, 0 };                  /* load the call's number */
	for (i = 0; i < N; i++)
		f[ENTRY + i] = (struct insn){ 0x15, (uint8_t)(N - i), 0, (uint32_t)calls[i] };
	f[ENTRY + N] = f[2];
	f[ENTRY + N + 1] = (struct insn){ 0x06, 0, 0, 0x7fff0000 };     /* allow */
	return seccomp(f, LEN(f));
#endif
}

/* Send the replies; -1 when nobody reads them. */
static int
fxflush(struct fx *s)
{
	int r = writeall(1, s->out.s, s->out.len);

	s->out.len = 0;
	return r;
}

/* Serve dir until the client ends; the exit status. */
static int
fxserve(struct fx *s, const char *dir)
{
	struct rlimit rl;
	unsigned char *in = xrealloc(NULL, 1, 2 * FXMAX);
	size_t have = 0, at, len;
	ssize_t n;
	int i;

	if ((s->root = open(dir, O_PATH|O_DIRECTORY|O_CLOEXEC)) < 0)
		die("share %s:", dir);
	s->uid = geteuid();
	s->gid = getegid();
	for (i = 0; i < 2; i++)         /* an agent's sockets do not block */
		(void)fcntl(i, F_SETFL, fcntl(i, F_GETFL) & ~O_NONBLOCK);
	umask(0);                       /* modes are the guest's */
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < FXHANDLES + 16) {
		rl.rlim_cur = rl.rlim_max < FXHANDLES + 16 ? rl.rlim_max : FXHANDLES + 16;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	tzset();                        /* the last time a file outside can be read */
	bufputs(&s->out, "");
	/* a handle of another server, in a guest that was loaded from a snapshot, is none of ours */
	if (getrandom(&s->serial, sizeof s->serial, 0) != sizeof s->serial)
		die("getrandom:");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("no_new_privs:");
	if (!fxlandlock(s->root, s->readonly))
		debug("%s: no Landlock here (Linux 5.19 or later, and in the lsm= list): paths are checked all the same", dir);
	if (!fxseccomp())
		debug("%s: no seccomp filter here:", dir);
	while ((n = read(0, in + have, 2 * FXMAX - have)) != 0) {
		if (n < 0 && errno == EINTR && !gotsig)
			continue;
		if (n < 0)
			break;
		for (have += (size_t)n, at = 0; have - at >= 4; at += 4 + len) {
			struct fxreq head = { in + at, 4, 0 };

			len = fxget32(&head);
			if (len < 1 || len > FXMAX) {
				error("%s: the guest sent a packet of %zu bytes; this is not SFTP", dir, len);
				return 1;
			}
			if (have - at - 4 < len)
				break;
			fxpacket(s, in + at + 4, len);
			if (s->gone) {
				error("%s was removed", dir);
				return 1;
			}
			if (s->out.len > FXMAX && fxflush(s) < 0)
				return 1;
		}
		if (fxflush(s) < 0)
			return 1;
		memmove(in, in + at, have -= at);
	}
	return 0;
}

/* ---- 21. QEMU ----------------------------------------------------------- */

#define PORTSMAX 30                     /* virtio-serial ports of a controller, without the console's */

/* A file name inside a QEMU option, where a comma ends the value. */
static const char *
qemupath(const char *path)
{
	struct buf b = { 0 };

	for (; *path; path++) {
		if (*path == ',')
			bufputc(&b, ',');
		bufputc(&b, *path);
	}
	return bufkeep(&b);
}

/* The CPU that the configuration names for its architecture, or NULL. */
static const char *
cputype(const struct conf *c)
{
	const struct pairs *const maps[] = { &c->cputype, &c->oldcputype };
	const struct pair *p;
	size_t i;

	for (i = 0; i < LEN(maps); i++)
		if ((p = findpair(maps[i], c->arch)) && p->val && *p->val)
			return p->val;
	return NULL;
}

/* The words that start QEMU; those behind the first are options already. */
static void
qemuprogram(struct args *a, const struct arch *ar)
{
	const char *s = envor(ar->env, ar->qemu);

	if (!shellwords(a, s))
		die("%s is %s, in which a quote is not closed", ar->env, bq(s));
	if (!a->n)
		arg(a, "%s", ar->qemu);
}

/* What QEMU prints when asked with these words; "" when it fails. */
static const char *
qemusays(const struct arch *ar, const char *words)
{
	struct args a = { 0 };
	struct buf b = { 0 };
	const char *r = "";

	qemuprogram(&a, ar);
	argwords(&a, words);
	if (runto(a.v, NULL, &b, NOFD) == 0 && b.s)
		r = keep("%s", b.s);
	argsfree(&a);
	buffree(&b);
	return r;
}

/* Its version as X*1000000+Y*1000+Z, 0 when unknown. */
static long long
qemuversion(const struct arch *ar, const char **text)
{
	const char *s = strstr(qemusays(ar, "--version"), "version ");
	long long v;
	bool tail;

	*text = s ? keep("%.*s", (int)strspn(s + 8, "0123456789."), s + 8) : "";
	v = s ? version3(*text, &tail) : -1;
	return v < 0 ? 0 : v;
}

/* Where a program is that may not be in PATH, or NULL. */
static const char *
findhidden(const char *const *places)
{
	const char *r = NULL;

	while (!r && *places)
		r = findprog(*places++);
	return r;
}

/* Before a start: does this QEMU have what the configuration asks for? */
static void
checkqemu(const struct conf *c)
{
	const struct arch *ar = archbyname(c->arch);
	const char *cpu = cputype(c), *have, *help, *p, *machine;
	const struct pair *old = c->oldcputype.v, *new;
	long long want = 0;
	bool tail, found = false;
	size_t n, i;

	if (c->minqemu && (want = version3(c->minqemu, &tail)) < 0)
		die("field `vmOpts.qemu.minimumVersion` must be a semvar value, got %s: %s is not in dotted-tri format",
		    bq(c->minqemu), c->minqemu);
	if (c->minqemu && qemuversion(ar, &have) < want)
		die("QEMU %s is too old, template requires %s or later", have, bq(c->minqemu));
	if (c->oldcputype.n)
		warn("The top-level `cpuType` field is deprecated and will be removed in a future release. Please migrate to `vmOpts.qemu.cpuType`.");
	for (n = c->oldcputype.n; n--; old++)
		if ((new = findpair(&c->cputype, old->key)) && old->val && new->val && *old->val && *new->val && strcmp(old->val, new->val) != 0)
			warn("Conflicting cpuType for arch %s: top-level=%s, vmOpts.qemu=%s; using vmOpts.qemu value",
			    bq(new->key), bq(old->val), bq(new->val));
	if (cpu && strcmp(cpu, "max") != 0) {
		n = strcspn(cpu, ",");
		machine = keep("-cpu help -machine %.*s", (int)strcspn(ar->machine, ","), ar->machine);
		cpu = keep("%.*s", (int)n, cpu);
		for (help = qemusays(ar, machine), p = help; n && !found && (p = strstr(p, cpu)); p += n)
			found = (p == help || isspace((unsigned char)p[-1]) || p[-1] == '\'') &&
			    (!p[n] || isspace((unsigned char)p[n]) || p[n] == '\'');
		if (*help && !found && strcmp(cpu, "host") != 0)
			die("cpu %s is not supported by %s", bq(cpu), ar->qemu);
	}
	if (c->mounttype && strcmp(c->mounttype, mountkinds[mountkind(c)]) != 0)
		die("field `mountType` must be one of [reverse-sshfs 9p virtiofs] for QEMU driver on Linux, got %s", bq(c->mounttype));
	if (c->mounts.n && mountkind(c) == MTVIRTIOFS && !findhidden(virtiofsds))
		die("virtiofsd: not found in PATH, %s; install virtiofsd (in Debian 12 a part of qemu-system-common), or use another `mountType`",
		    virtiofsds[1]);
	for (i = 0; mountkind(c) == MTSSHFS && i < c->mounts.n; i++)
		if (byopenssh(&((const struct mount *)c->mounts.v)[i]) && !findhidden(sftpservers))
			die("sftp-server: not found; install openssh-sftp-server, or leave `sftpDriver` out");
	if (c->mounts.n && mountkind(c) == MT9P && c->uid != geteuid())
		warn("`mountType: 9p` shows owners as they are, and the guest's user has uid %lld, yours is %ld: "
		    "what is yours it cannot change (reverse-sshfs and virtiofs translate)", c->uid, (long)geteuid());
	if (c->legacybios && strcmp(ar->name, "x86_64") != 0 && strcmp(ar->name, "armv7l") != 0)
		warn("field `firmware.legacyBIOS` is not supported on architecture %s: ignored", bq(ar->name));
	if (c->tpm && !ar->tpm)
		die("field `tpm` is not supported on architecture %s", bq(ar->name));
	if (c->tpm && !findprog("swtpm"))
		die("swtpm: not found in PATH; install swtpm, or leave `tpm` out");
}

static void
qemumachine(struct args *a, const struct conf *c, const struct arch *ar, const char *accel)
{
	const char *cpu = cputype(c), *p, *v;
	long long old = LLONG_MAX;
	bool x86 = strcmp(ar->name, "x86_64") == 0, native = strcmp(ar->name, host.arch) == 0;

	argopt(a, "-m", "%lld", c->memory >> 20 ? c->memory >> 20 : 1);
	arg(a, "-cpu");
	if (strcmp(ar->name, "riscv64") == 0)
		old = qemuversion(ar, &v);      /* the youngest of the machines */
	arg(a, "%s", cpu ? cpu : strcmp(accel, "kvm") == 0 ? "host" : old < 8002000 ? "rv64" : "max");
	arg(a, "-machine");
	if ((p = strstr(ar->machine, ",acpi=off")) && old < 8000000)
		arg(a, "%.*s", (int)(p - ar->machine), ar->machine);    /* it has none to switch off */
	else
		arg(a, x86 && strcmp(accel, "kvm") != 0 ? "%s,vmport=off" : "%s", ar->machine);
	arg(a, "-accel");
	if (strcmp(accel, "tcg") == 0)
		/* the default of 32 MiB of translated code is thrown away all the time
		 * by a booting systemd; foreign guests choose threads by themselves */
		arg(a, native ? "tcg,thread=multi,tb-size=512" : "tcg,tb-size=512");
	else
		arg(a, "%s", accel);
	if (x86) {
		argwords(a, "-global ICH9-LPC.disable_s3=1 -global ICH9-LPC.disable_s4=1");
	}
	argopt(a, "-smp", "%lld,sockets=1,cores=%lld,threads=1", c->cpus, c->cpus);
}

/* The UEFI code for an instance: its own, the user's, QEMU's, the system's. */
static const char *
efifirmware(const char *dir, const struct arch *ar)
{
	const char *prog = findprog(ar->qemu), *bin = parentdir(prog), *file = keep("edk2-%s-code.fd", ar->edk2 ? ar->edk2 : ar->name);
	const char *paths[4 + LEN(ar->efi)];
	size_t n = 0, i;

	paths[n++] = keep("%s/qemu-efi-code.fd", dir);
	paths[n++] = keep("%s/.local/share/qemu/%s", host.home ? host.home : "", file);
	if (bin && parentdir(bin)) {
		paths[n++] = keep("%s/share/qemu/%s", parentdir(bin), file);
		paths[n++] = keep("%s/share/%s", bin, file);
	}
	for (i = 0; i < LEN(ar->efi) && ar->efi[i]; i++)
		paths[n++] = ar->efi[i];
	for (i = 0; i < n; i++)
		if (access(paths[i], R_OK) == 0)
			return paths[i];
	return NULL;
}

/* Kernel and initrd of the image; else firmware, for the boot loader on it. */
static void
qemuboot(struct args *a, const struct conf *c, const struct arch *ar)
{
	const char *kernel = keep("%s/kernel", c->dir), *initrd = keep("%s/initrd", c->dir);
	const char *cmdline = readline1(keep("%s/kernel.cmdline", c->dir)), *fw;

	if (access(kernel, F_OK) == 0) {
		argopt(a, "-kernel", "%s", kernel);
		if (cmdline)
			argopt(a, "-append", "%s", cmdline);
		if (access(initrd, F_OK) == 0)
			argopt(a, "-initrd", "%s", initrd);
		return;
	}
	if (!ar->efi[0] || (c->legacybios && (strcmp(ar->name, "x86_64") == 0 || strcmp(ar->name, "armv7l") == 0)))
		return;
	if ((fw = efifirmware(c->dir, ar))) {
		argopt(a, "-drive", "if=pflash,format=raw,readonly=on,file=%s", qemupath(fw));
		return;
	}
	if (strcmp(ar->name, "x86_64") != 0)
		die("could not find firmware for `%s` (install the package that has %s)", ar->name, ar->efi[0]);
	info("No UEFI firmware found (package ovmf); booting with legacy BIOS");
}

/* Screen, keyboard and pointer, sound, TPM: what a configuration asks for. */
static void
qemuextras(struct args *a, const struct conf *c, const struct arch *ar)
{
	const char *v, *display = c->display && *c->display ? c->display : "none", *dev = c->audiodevice;
	bool vnc = strcmp(display, "vnc") == 0;

	arg(a, "-display");
	if (vnc)
		arg(a, "vnc=%s,password=on", c->vncdisplay && *c->vncdisplay ? c->vncdisplay : vncdefault);
	else
		arg(a, "%s", display);
	if (strcmp(display, "none") != 0) {
		argopt(a, "-device", strcmp(ar->name, "x86_64") == 0 || strcmp(ar->name, "riscv64") == 0 ? "virtio-vga" : "virtio-gpu-%s", ar->bus);
		argopt(a, "-device", "virtio-keyboard-%s", ar->bus);
		argopt(a, "-device", vnc ? "virtio-tablet-%s" : "virtio-mouse-%s", ar->bus);
	}
	if (dev && *dev && strcmp(dev, "none") != 0) {
		argopt(a, "-audiodev", "%s,id=snd0", strcmp(dev, "default") == 0 ? "pa" : dev);
		if (c->audiointerface && strcmp(c->audiointerface, "virtio") == 0 && qemuversion(ar, &v) >= 8002000) {
			argopt(a, "-device", "virtio-sound-%s,audiodev=snd0", ar->bus);
		} else {
			if (c->audiointerface && strcmp(c->audiointerface, "virtio") == 0)
				warn("`audio.interface: virtio` needs QEMU 8.2.0 or later; using hda");
			argwords(a, "-device ich9-intel-hda -device hda-output,audiodev=snd0");
		}
	}
	if (c->tpm && ar->tpm) {
		argopt(a, "-chardev", "socket,id=chrtpm,path=%s", qemupath(keep("%s/swtpm.sock", c->dir)));
		argopt(a, "-tpmdev", "emulator,id=tpm0,chardev=chrtpm");
		argopt(a, "-device", "%s,tpmdev=tpm0", ar->tpm);
	}
}

static void
qemuserial(struct args *a, const struct conf *c)
{
	/* logappend: the host agent cuts the file when it grows beyond its cap */
	argopt(a, "-chardev", "socket,id=char-serial,path=%s,server=on,wait=off,logfile=%s,logappend=on",
	    qemupath(keep("%s/serial.sock", c->dir)), qemupath(keep("%s/serial.log", c->dir)));
	argopt(a, "-serial", "chardev:char-serial");
}

/* Virtio-serial: the port of the guest agent, and one a mount.  A controller has
 * 31 ports, the first of which is a console's (virtio 5.3). */
static void
qemuports(struct args *a, const struct conf *c, const struct arch *ar)
{
	size_t i, n = !c->agent ? 0 : mountkind(c) == MTSSHFS ? 1 + c->mounts.n : 1;
	const char *id;

	for (i = 0; i < n; i++) {
		if (i % PORTSMAX == 0)
			argopt(a, "-device", "virtio-serial-%s,id=ports%zu,max_ports=%zu", ar->bus, i / PORTSMAX, 1 + (n - i < PORTSMAX ? n - i : PORTSMAX));
		id = i ? keep("mnt.%zu", i - 1) : "ga";
		argopt(a, "-chardev", "socket,id=char-%s,path=%s,server=on,wait=off", id, qemupath(keep("%s/%s.sock", c->dir, id)));
		argopt(a, "-device", "virtserialport,bus=ports%zu.0,id=%s,chardev=char-%s,name=lima.%s", i / PORTSMAX, i ? id : "agent", id, i ? id : "agent");
	}
}

/* A device for each mount of 9p or virtiofs.  The latter's server maps the memory
 * of the guest, which so has to be a file that can be shared. */
static void
qemumounts(struct args *a, const struct conf *c, const struct arch *ar)
{
	const struct mount *m = c->mounts.v;
	enum mountkind k = mountkind(c);
	size_t i;

	if (k == MTVIRTIOFS && c->mounts.n) {
		argopt(a, "-object", "memory-backend-memfd,id=virtiofs-shm,size=%lldM,share=on", c->memory >> 20 ? c->memory >> 20 : 1);
		argopt(a, "-machine", "memory-backend=virtiofs-shm");
	}
	for (i = 0; k != MTSSHFS && i < c->mounts.n; i++, m++) {
		if (m->lost)
			continue;
		if (k == MT9P) {
			argopt(a, "-fsdev", "local,id=mnt%zu,path=%s,security_model=%s,multidevs=remap%s", i, qemupath(m->location), qemupath(m->p9model),
			    m->writable ? "" : ",readonly=on");
			argopt(a, "-device", "virtio-9p-%s,fsdev=mnt%zu,mount_tag=%s", ar->bus, i, mounttag(m, k));
		} else {
			argopt(a, "-chardev", "socket,id=char-virtiofs-%zu,path=%s", i, qemupath(keep("%s/virtiofsd-%zu.sock", c->dir, i)));
			argopt(a, "-device", "vhost-user-fs-%s,queue-size=%lld,chardev=char-virtiofs-%zu,tag=%s", ar->bus, m->queuesize, i, mounttag(m, k));
		}
	}
}

/* A NIC for each of `networks`, beside net0. */
static void
qemunetworks(struct args *a, const struct conf *c, const struct arch *ar)
{
	const struct network *n = c->networks.v;
	size_t i;

	for (i = 1; i <= c->networks.n; i++, n++) {
		arg(a, "-netdev");
		if (n->lima && *n->lima)
			arg(a, "dgram,id=net%zu,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", i,
			    qemupath(netsock(n->lima, n->mac, "in")), qemupath(netsock(n->lima, n->mac, "out")));
		else
			arg(a, "stream,id=net%zu,server=off,addr.type=unix,addr.path=%s", i, qemupath(n->socket ? n->socket : ""));
		argopt(a, "-device", strcmp(ar->bus, "pci") == 0 ? "virtio-net-%s,netdev=net%zu,mac=%s,romfile=" : "virtio-net-%s,netdev=net%zu,mac=%s",
		    ar->bus, i, n->mac);
	}
}

/* Additional disks and the archive of containerd, before cidata: the guest knows them as vdb ... */
static void
qemudisks(struct args *a, const struct conf *c, const struct arch *ar)
{
	const struct datadisk *v = c->disks.v;
	struct disk d;
	const char *why;
	size_t i;

	for (i = 0; i < c->disks.n; i++) {
		(void)diskfind(&d, v[i].name, &why);
		argopt(a, "-drive", "file=%s,if=none,format=%s,discard=unmap,detect-zeroes=unmap,id=data%zu", qemupath(d.file), d.fmt, i);
		argopt(a, "-device", "virtio-blk-%s,drive=data%zu,serial=lima-disk-%zu", ar->bus, i, i);
	}
	if ((why = enginearchive(c))) {
		argopt(a, "-drive", "file=%s,if=none,format=raw,readonly=on,id=nerdctl", qemupath(why));
		argopt(a, "-device", "virtio-blk-%s,drive=nerdctl,serial=lima-nerdctl", ar->bus);
	}
}

/* The command line of an instance.  The socket of ha.qmp comes as descriptor 3. */
static void
qemuargs(struct args *a, const struct conf *c, long long port, bool sandbox)
{
	const struct arch *ar = archbyname(c->arch);
	const char *why, *dir = c->dir, *fmt;
	long long size;

	qemuprogram(a, ar);
	if (a->n > 1)
		warn("QEMU gets more words of $%s: %s ...", ar->env, a->v[1]);
	qemumachine(a, c, ar, accelerator(c->arch, &why));
	qemuboot(a, c, ar);
	arg(a, "-nodefaults");
	arg(a, "-no-user-config");
	qemuextras(a, c, ar);
	fmt = diskformat(dir, &size);
	argopt(a, "-drive", "file=%s,if=none,format=%s,discard=unmap,detect-zeroes=unmap,id=boot-disk",
	    qemupath(keep("%s/disk", dir)), fmt);
	argopt(a, "-device", "virtio-blk-%s,drive=boot-disk,bootindex=1", ar->bus);
	if (access(keep("%s/iso", dir), F_OK) == 0) {
		argopt(a, "-drive", "file=%s,if=none,format=raw,media=cdrom,readonly=on,id=iso", qemupath(keep("%s/iso", dir)));
		argopt(a, "-device", strcmp(ar->name, "x86_64") == 0 ? "ide-cd,drive=iso,bootindex=0" : "virtio-blk-%s,drive=iso,bootindex=0", ar->bus);
	}
	qemudisks(a, c, ar);
	/* virtio-blk, not limactl's SCSI CD-ROM: its driver is there already, and
	 * the serial number is readable in /sys before udev runs */
	argopt(a, "-drive", "file=%s,if=none,format=raw,readonly=on,id=cidata", qemupath(keep("%s/cidata.iso", dir)));
	argopt(a, "-device", "virtio-blk-%s,drive=cidata,serial=cidata", ar->bus);
	argopt(a, "-netdev", "user,id=net0,net=%s,dhcpstart=%s,hostfwd=tcp:127.0.0.1:%lld-:22", slirpnet, slirpaddress, port);
	arg(a, "-device");
	/* no option ROM: nobody boots from this network, and its file may be missing */
	arg(a, strcmp(ar->bus, "pci") == 0 ? "virtio-net-%s,netdev=net0,mac=%s,romfile=" : "virtio-net-%s,netdev=net0,mac=%s",
	    ar->bus, macaddress(dir));
	qemunetworks(a, c, ar);
	argopt(a, "-device", "virtio-rng-%s", ar->bus);
	argopt(a, "-device", "virtio-balloon-%s,free-page-reporting=on", ar->bus);
	qemuports(a, c, ar);
	qemumounts(a, c, ar);
	qemuserial(a, c);
	argopt(a, "-chardev", "socket,id=char-qmp,path=%s,server=on,wait=off", qemupath(keep("%s/qmp.sock", dir)));
	argwords(a, "-mon chardev=char-qmp,mode=control -chardev socket,id=char-ha,fd=3,server=on,wait=off -mon chardev=char-ha,mode=control");
	if (sandbox)
		argwords(a, "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	argopt(a, "-name", "lima-%s", c->name);
	argopt(a, "-pidfile", "%s/qemu.pid", dir);
}

/* ---- 22. QMP ------------------------------------------------------------ */

/* QEMU's monitor: JSON lines over a unix socket, qmp-spec.  One client at a time
 * gets a greeting and must ask for qmp_capabilities before anything else. */

#define QMPMAX (1 << 20)                /* a longer line is not QEMU's */
struct qmpcall {                        /* an answer that is awaited */
	long long id;                   /* 0: a free place */
	/* ret: the value of `return`, or NULL and err says why; both are gone afterwards */
	void (*reply)(void *arg, const struct ynode *ret, const char *err);
	void *arg;
};
struct qmp {
	int fd;                         /* -1: not connected */
	struct buf in;
	long long lastid;
	struct qmpcall call[64];
};

/* Send one command: its name, and its arguments as a JSON object or NULL.  -1
 * when the socket takes no more, as with a stopped QEMU, and reply is not called.
 * reply: NULL when the answer does not matter. */
static int
qmpask(struct qmp *q, const char *cmd, const char *args, void (*reply)(void *, const struct ynode *, const char *), void *arg)
{
	struct buf b = { 0 };
	ssize_t n;
	size_t i;

	for (i = 0; reply && i < LEN(q->call) && q->call[i].id; i++)
		;
	if (q->fd < 0 || i == LEN(q->call))
		return -1;
	bufprintf(&b, "{\"execute\":\"%s\"", cmd);
	if (args)
		bufprintf(&b, ",\"arguments\":%s", args);
	if (reply)
		bufprintf(&b, ",\"id\":%lld", ++q->lastid);
	bufputs(&b, "}\n");
	n = send(q->fd, b.s, b.len, MSG_NOSIGNAL|MSG_DONTWAIT);
	if (n == (ssize_t)b.len && reply)
		q->call[i] = (struct qmpcall){ q->lastid, reply, arg };
	n = n == (ssize_t)b.len ? 0 : -1;
	buffree(&b);
	return (int)n;
}

static int
qmpsend(struct qmp *q, const char *cmd)
{
	return qmpask(q, cmd, NULL, NULL, NULL);
}

/* Close the monitor; whoever waits for an answer is told. */
static void
qmpclose(struct qmp *q)
{
	struct qmpcall c;
	size_t i;

	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	buffree(&q->in);
	for (i = 0; i < LEN(q->call); i++)
		if ((c = q->call[i]).id) {
			q->call[i].id = 0;
			c.reply(c.arg, NULL, "QEMU's monitor is closed");
		}
}

/* An answer goes to whoever asked; the rest to event(). */
static void
qmpobject(struct qmp *q, const struct ynode *o, void (*event)(const struct ynode *))
{
	const struct ynode *id = yget(o, "id"), *err = yget(o, "error"), *desc = yget(err, "desc");
	struct qmpcall c;
	size_t i;

	for (i = 0; id && id->kind == Y_INT && i < LEN(q->call); i++)
		if (id->i && q->call[i].id == id->i) {
			c = q->call[i];
			q->call[i].id = 0;
			c.reply(c.arg, err ? NULL : yget(o, "return"), err && desc && desc->s ? desc->s : "no reason given");
			return;
		}
	event(o);
}

/* Read what is there and hand each event to fn.  -1 at the end of the stream. */
static int
qmpread(struct qmp *q, void (*fn)(const struct ynode *))
{
	struct ydoc d = { 0 };
	char chunk[4096], *nl;
	ssize_t n;
	size_t len;

	while ((n = recv(q->fd, chunk, sizeof chunk, MSG_DONTWAIT)) > 0) {
		bufadd(&q->in, chunk, (size_t)n);
		while ((nl = memchr(q->in.s, '\n', q->in.len))) {
			len = (size_t)(nl - q->in.s) + 1;
			if (yparsejson(&d, q->in.s, len) == 0)
				qmpobject(q, d.root, fn);
			yfree(&d);
			if (q->fd < 0)          /* a handler closed it */
				return 0;
			memmove(q->in.s, q->in.s + len, q->in.len -= len);
		}
		if (q->in.len > QMPMAX)
			return -1;
	}
	return n == 0 || (errno != EAGAIN && errno != EINTR) ? -1 : 0;
}

/* ---- 23. The loop ------------------------------------------------------- */

/* The host agent waits in one poll(2).  A watch is a descriptor and who reads
 * it, a proc a process known by its pidfd (a child of ours or an adopted one), a
 * timer a moment.  All three live in structs of their owners and are only linked
 * here; a handler may remove or add any of them, its own included, and free what
 * holds it.  Handlers never block. */

struct watch {
	int fd;
	short events;
	void (*ready)(struct watch *, short revents);
	void *arg;                      /* the owner's */
	struct watch *next;
};
struct timer {
	long long at;                   /* on now() */
	void (*due)(struct timer *);
	void *arg;
	bool on;
	struct timer *next;
};
struct proc {
	pid_t pid;
	bool child;                     /* ours to reap; adopted ones are not */
	struct watch w;                 /* of its pidfd; fd -1 or pid 0: not running */
	void (*ended)(struct proc *, int status);       /* wait status; 0 of an adopted one */
	void *arg;
	struct proc *next;
};
static struct {
	struct watch *watches;
	struct timer *timers;
	struct proc *procs;             /* that run */
	struct pollfd *pfd;             /* of this turn, */
	struct watch **slot;            /* and whose each is: NULL when removed meanwhile */
	size_t n, cap;
} loop;

/* Watch fd; ready() gets what poll says.  The caller keeps and closes fd. */
static void
watchadd(struct watch *w, int fd, short events, void (*ready)(struct watch *, short))
{
	w->fd = fd;
	w->events = events;
	w->ready = ready;
	w->next = loop.watches;
	loop.watches = w;
}

/* Forget a watch; nothing happens when it is not linked. */
static void
watchdel(struct watch *w)
{
	struct watch **p;
	size_t i;

	for (p = &loop.watches; *p && *p != w; p = &(*p)->next)
		;
	if (*p)
		*p = w->next;
	for (i = 0; i < loop.n; i++)
		if (loop.slot[i] == w)
			loop.slot[i] = NULL;
}

/* Forget a watch and close its descriptor, if there is one. */
static void
watchclose(struct watch *w)
{
	watchdel(w);
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

/* Call t->due in ms from now, once; again sets it anew. */
static void
timerset(struct timer *t, long long ms)
{
	t->at = now() + ms;
	if (!t->on) {
		t->on = true;
		t->next = loop.timers;
		loop.timers = t;
	}
}

static void
timeroff(struct timer *t)
{
	struct timer **p;

	for (p = &loop.timers; *p && *p != t; p = &(*p)->next)
		;
	if (*p)
		*p = t->next;
	t->on = false;
}

static bool
procruns(const struct proc *p)
{
	return p->pid != 0;
}

/* Its pidfd is readable: it ended. */
static void
procready(struct watch *w, short revents)
{
	struct proc *p = w->arg, **q;
	int st = 0;

	(void)revents;
	if (p->child && waitpid(p->pid, &st, WNOHANG) == 0)
		return;
	for (q = &loop.procs; *q && *q != p; q = &(*q)->next)
		;
	if (*q)
		*q = p->next;
	watchclose(w);
	p->pid = 0;
	p->ended(p, st);
}

/* Watch a process; p->ended is set.  -1 with a warning when that cannot be. */
static int
procwatch(struct proc *p, pid_t pid, bool child)
{
	int fd = pidfdopen(pid);

	if (fd < 0) {
		warn("watch process %ld:", (long)pid);
		return -1;
	}
	p->pid = pid;
	p->child = child;
	p->w.arg = p;
	watchadd(&p->w, fd, POLLIN, procready);
	p->next = loop.procs;
	loop.procs = p;
	return 0;
}

/* Start a job and watch it; over() is called when it has ended.  -1 with errno,
 * and it does not run: a child that nobody watches would never be stopped. */
static int
procstart(struct proc *p, const struct job *j, void (*over)(struct proc *, int))
{
	pid_t pid = spawn(j);
	int e;

	if (pid < 0)
		return -1;
	p->ended = over;
	if (procwatch(p, pid, true) == 0)
		return 0;
	e = errno;
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	errno = e;
	return -1;
}

static void
prockill(struct proc *p, int sig)
{
	if (procruns(p))
		(void)pidfdkill(p->w.fd, sig);
}

/* Signal every process that is watched. */
static void
prockillall(int sig)
{
	struct proc *p;

	for (p = loop.procs; p; p = p->next)
		(void)pidfdkill(p->w.fd, sig);
}

/* Milliseconds to the nearest deadline, -1 when there is none. */
static int
untilnext(void)
{
	const struct timer *t, *first = NULL;
	long long ms;

	for (t = loop.timers; t; t = t->next)
		if (!first || t->at < first->at)
			first = t;
	if (!first)
		return -1;
	ms = first->at - now();
	return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : (int)ms;
}

/* Call what is due; a handler may set or drop any timer. */
static void
expire(void)
{
	long long t = now();
	struct timer *p;

	do {
		for (p = loop.timers; p && p->at > t; p = p->next)
			;
		if (p) {
			timeroff(p);
			p->due(p);
		}
	} while (p);
}

/* Run until over() says so. */
static void
looprun(bool (*over)(void))
{
	struct watch *w;
	size_t i;

	while (!over()) {
		for (loop.n = 0, w = loop.watches; w; w = w->next) {
			if (loop.n == loop.cap) {
				loop.cap = loop.cap * 2 + 32;
				loop.pfd = xrealloc(loop.pfd, loop.cap, sizeof *loop.pfd);
				loop.slot = xrealloc(loop.slot, loop.cap, sizeof *loop.slot);
			}
			loop.pfd[loop.n] = (struct pollfd){ .fd = w->fd, .events = w->events };
			loop.slot[loop.n++] = w;
		}
		if (poll(loop.pfd, loop.n, untilnext()) < 0) {
			if (errno == EINTR)
				continue;       /* the self-pipe is readable now */
			die("poll:");
		}
		for (i = 0; i < loop.n; i++)
			if (loop.pfd[i].revents && loop.slot[i])
				loop.slot[i]->ready(loop.slot[i], loop.pfd[i].revents);
		loop.n = 0;
		expire();
	}
}

/* ---- 24. Mounts --------------------------------------------------------- */

/* A mount of an instance.  In the guest boot.sh keeps a sshfs that speaks SFTP on
 * the virtio-serial port lima.mnt.N; at the socket of that port, mnt.N.sock, is a
 * server on the host, `limactl sftp`.  QEMU says when the guest opens or closes a
 * port, at most once a second for each (what is in between is lost, the last
 * word is not).
 *
 * One server serves one opening.  At the close it is killed: a sshfs that died
 * may leave half a packet in the socket.  A server that ends by itself makes
 * the guest's sshfs end too, and the port is closed and opened.  Before that no
 * new server is connected, for a sshfs that missed the gap would wait for an
 * answer of the old one for ever.
 *
 * Servers outlive a killed host agent.  The next one finds each by its lock on
 * mnt.N.pid and asks QEMU which ports are open.
 *
 * Where the guest has no agent it has no virtio-serial either, and no boot.sh
 * that mounts: then a server is joined, by a socketpair, to an ssh that runs
 * sshfs in the guest.
 *
 * A mount of 9p is QEMU's own work.  One of virtiofs has a virtiofsd, which QEMU
 * connects to as it starts, and never again: what dies stays dead. */

struct mnt {
	const struct mount *m;
	const char *sock;
	struct args server;             /* its command line */
	struct proc proc;
	struct args sshargs;            /* without ports: the ssh at the other end, */
	struct proc ssh;
	int status;                     /* how it ended, */
	int told;                       /* the one that was warned of last */
	struct watch words;             /* its stderr (fd -1: closed), */
	struct buf said;                /* and what came of that, SAIDMAX bytes at most */
	struct timer again;
	bool open;                      /* the guest has opened the port, or mounted it */
	bool dropped;                   /* its end is our doing */
	long long since, pause;         /* when it was started, and for how long not again */
};
static struct {
	struct mnt *v;
	size_t n;
	enum mountkind kind;
	bool byssh;                     /* sshfs without ports */
	bool up;                        /* by ssh: it works */
	bool over;                      /* QEMU is gone */
	void (*changed)(bool came);     /* one came or went, if ports do not tell */
} mnts;

static void mountended(struct proc *p, int st);

/* Connect a new server to the port. */
static void
mountserve(struct timer *tm)
{
	struct mnt *t = tm->arg;
	/* not to block here: the socket serves one and queues two */
	int fd = connectunix(t->sock, SOCK_NONBLOCK);
	struct job j = { .argv = t->server.v, .fd = { fd, fd, 2 }, .session = true };

	t->since = now();
	t->dropped = false;
	if (fd < 0 || procstart(&t->proc, &j, mountended) < 0) {
		warn("serve the mount %s at %s:", t->m->location, t->sock);
		timerset(tm, t->pause = retrylast);
	}
	if (fd >= 0)
		close(fd);
}

/* Set the pause after an end: none after a life of some length or an end of our
 * doing, else twice the last. */
static void
mountpause(struct mnt *t)
{
	t->pause = t->dropped || now() - t->since > retrylast ? 0 : t->pause ? t->pause * 2 : retryfirst;
	if (t->pause > mountslow)
		t->pause = mountslow;
}

static void
mountended(struct proc *p, int st)
{
	struct mnt *t = p->arg;

	if (!t->dropped && !t->pause)           /* the first time in a row */
		warn("The server of the mount %s has ended (%s %d); the guest mounts it again", t->m->location,
		    WIFSIGNALED(st) ? "signal" : "status", WIFSIGNALED(st) ? WTERMSIG(st) : WEXITSTATUS(st));
	mountpause(t);
	/* for a sshfs that waits although it came too early for the old one */
	if (t->open)
		timerset(&t->again, t->pause + mountgap);
}

/* The guest has opened or closed the port. */
static void
mountport(struct mnt *t, bool open)
{
	timeroff(&t->again);
	t->open = open;
	if (procruns(&t->proc)) {
		t->dropped = true;
		prockill(&t->proc, SIGKILL);
	} else if (open && t->pause)
		timerset(&t->again, t->pause);
	else if (open)
		mountserve(&t->again);
}

/* The mount of a device or chardev of qemuports(), or NULL. */
static struct mnt *
mountbyid(const struct ynode *id, const char *prefix)
{
	long long i;

	return id && id->kind == Y_STR && startswith(id->s, prefix) && parsenum(id->s + strlen(prefix), 0, (long long)mnts.n - 1, &i) == 0 ?
	    &mnts.v[i] : NULL;
}

/* The data of VSERPORT_CHANGE. */
static void
mountevent(const struct ynode *data)
{
	const struct ynode *open = yget(data, "open");
	struct mnt *t = mountbyid(yget(data, "id"), "mnt.");

	if (t && open)
		mountport(t, open->i);
}

/* The answer to query-chardev, NULL when there was none: which ports are open. */
static void
mountports(const struct ynode *v)
{
	const struct ynode *o, *open;
	struct mnt *t;

	for (o = v ? v->first : NULL; o; o = o->next) {
		if (!(t = mountbyid(yget(o, "label"), "char-mnt.")) || !(open = yget(o, "frontend-open")))
			continue;
		if (open->i != procruns(&t->proc))
			mountport(t, open->i);
		t->open = open->i;
	}
}

/* Make the directory of a mount when it is missing.  0, or -1 with errno. */
static int
mountdir(const struct mount *m)
{
	mode_t old;
	int r;

	if (access(m->location, F_OK) == 0)
		return 0;
	old = umask(022);
	if ((r = mkdirs(m->location, 0755)) == 0)
		info("Created %s, to be mounted", bq(m->location));
	(void)umask(old);
	return r;
}

/* ---- through ssh ---- */

#define SAIDMAX 1024
#define MOUNTED "lima-mounted"

/* For the guest's sh -c, with mount point and options of sshfs, and the path.  In one line, for
 * the login shell may be csh.  A mount of before goes: its server is gone.  What
 * the user may make is made as the user. */
static const char mountscript[] =
    "mp=$1; PATH=$PATH:/usr/sbin:/sbin; "
    "mounted() { while read -r _ d t _; do [ \"$t\" = fuse.sshfs ] && [ \"$(printf %b \"$d\")\" = \"$mp\" ] && return; "
    "done </proc/self/mounts; return 1; }; "
    "command -v sshfs >/dev/null || { echo 'install the package sshfs in the guest (fuse-sshfs in Fedora)' >&2; exit 127; }; "
    "mounted && sudo -n umount -l \"$mp\"; "
    "[ -d \"$mp\" ] || mkdir -p \"$mp\" 2>/dev/null || sudo -n mkdir -p \"$mp\" || exit; "
    "[ -c /dev/fuse ] || sudo -n modprobe -q fuse; "
    "{ until mounted && [ -d \"$mp\" ]; do [ -d /proc/$$ ] || exit; sleep 0.1; done; echo " MOUNTED " >&2; } </dev/null >/dev/null & "
    "case $(sshfs -h 2>&1) in *no_contain_symlinks*) set -- \"$1\" \"$2,no_contain_symlinks\" \"$3\";; esac; "  /* as in boot.sh */
    "exec sudo -n sshfs \":$3\" \"$mp\" -f -o \"$2\"";

static void mountleft(struct proc *p, int st);
static void mountsaid(struct watch *w, short revents);

/* Is the mount point of t below that of out? */
static bool
liesin(const struct mnt *t, const struct mnt *out)
{
	const char *s = below(t->m->mountpoint, out->m->mountpoint);

	return s && *s;
}

/* Is a mount that t lies in not there? */
static bool
mountinner(const struct mnt *t)
{
	size_t i;

	for (i = 0; i < mnts.n; i++)
		if (!mnts.v[i].open && !mnts.v[i].m->lost && liesin(t, &mnts.v[i]))
			return true;
	return false;
}

/* Start both ends; of two that run although one should have followed the other,
 * make an end first.  Does nothing while it cannot be mounted. */
static void
mountlink(struct timer *tm)
{
	struct mnt *t = tm->arg;
	struct job server = { .argv = t->server.v, .session = true }, ssh = { .argv = t->sshargs.v, .session = true };
	int s[2] = { -1, -1 }, e[2] = { -1, -1 };
	size_t i;

	if (procruns(&t->proc) || procruns(&t->ssh)) {
		prockill(&t->proc, SIGKILL);
		prockill(&t->ssh, SIGKILL);
		return;
	}
	if (!mnts.up || t->m->lost || mountinner(t))
		return;
	t->since = now();
	t->dropped = false;
	if (socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0, s) == 0 && cloexecpipe(e) == 0) {
		(void)fcntl(e[0], F_SETFL, O_NONBLOCK);         /* ssh's end blocks */
		watchadd(&t->words, e[0], POLLIN, mountsaid);
	}
	server.fd[0] = server.fd[1] = s[0];
	server.fd[2] = 2;
	ssh.fd[0] = ssh.fd[1] = s[1];
	ssh.fd[2] = e[1];
	if (e[0] < 0 || procstart(&t->proc, &server, mountleft) < 0 || procstart(&t->ssh, &ssh, mountleft) < 0) {
		warn("serve the mount %s through ssh:", t->m->location);
		if (!procruns(&t->proc))        /* else its end follows */
			watchclose(&t->words);
		timerset(tm, t->pause = retrylast);
	}
	for (i = 0; i < 2; i++)
		if (s[i] >= 0)
			close(s[i]);
	if (e[1] >= 0)
		close(e[1]);
}

/* Start what does not run and waits for no moment of its own. */
static void
mountlinks(void)
{
	size_t i;

	for (i = 0; i < mnts.n; i++)
		if (!procruns(&mnts.v[i].proc) && !procruns(&mnts.v[i].ssh) && !mnts.v[i].again.on)
			mountlink(&mnts.v[i].again);
}

/* ssh or the guest says something.  Once a turn, for a guest may never end. */
static void
mountsaid(struct watch *w, short revents)
{
	struct mnt *t = w->arg;
	char chunk[SAIDMAX];
	ssize_t n = read(w->fd, chunk, sizeof chunk);
	size_t i;

	(void)revents;
	if (n > 0)
		bufadd(&t->said, chunk, (size_t)n);
	if (t->said.len > SAIDMAX) {            /* the last words are what counts */
		memmove(t->said.s, t->said.s + t->said.len - SAIDMAX, SAIDMAX + 1);
		t->said.len = SAIDMAX;
	}
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		watchclose(w);
	if (!t->open && t->said.len && strstr(t->said.s, MOUNTED)) {
		t->open = true;
		t->said.len = 0;        /* what comes now is about its end */
		for (i = 0; i < mnts.n; i++)    /* one that came before, when both had ended, is beneath it */
			if (liesin(&mnts.v[i], t) && procruns(&mnts.v[i].ssh)) {
				mnts.v[i].dropped = true;
				prockill(&mnts.v[i].ssh, SIGKILL);
			}
		mountlinks();
		mnts.changed(true);
	}
}

/* One of both has ended.  ssh sees that a server is gone and may say why; a
 * server whose ssh is gone has nobody to serve. */
static void
mountleft(struct proc *p, int st)
{
	struct mnt *t = p->arg;
	struct buf why = { 0 };
	char *line;

	if (p == &t->ssh)
		t->status = st;
	if (procruns(&t->proc) || procruns(&t->ssh)) {
		prockill(&t->proc, SIGKILL);
		timerset(&t->again, mountgap);
		return;
	}
	if (t->words.fd >= 0)
		mountsaid(&t->words, 0);
	watchclose(&t->words);          /* a child of ssh's may hold it */
	/* the first time in a row, and when the reason is another */
	if (mnts.up && !t->dropped && (!t->pause || t->status != t->told)) {
		t->told = t->status;
		if (t->said.len) {
			line = chomp(t->said.s);
			line = strrchr(line, '\n') ? strrchr(line, '\n') + 1 : line;
			bufsafe(&why, line, strlen(line));
		}
		warn("The mount %s is not there in the guest, trying again: %s", t->m->location, why.len ? why.s : keep("ssh %s", ended(t->status)));
		buffree(&why);
	}
	buffree(&t->said);
	t->open = false;
	mountpause(t);
	timerset(&t->again, t->pause ? t->pause : retryfirst);
	mnts.changed(false);
}

/* ssh works, or does not; gone: what was mounted went with the guest. */
static void
mountssh(bool up, bool gone)
{
	size_t i;

	mnts.up = up;
	for (i = 0; gone && i < mnts.n; i++) {
		mnts.v[i].dropped = true;
		prockill(&mnts.v[i].ssh, SIGKILL);
	}
	if (up && mnts.byssh)
		mountlinks();
}

/* By ssh, is a mount on its way that has not failed yet?  An adopted server has
 * to end first. */
static bool
mountpending(void)
{
	const struct mnt *t = mnts.v, *end = t + mnts.n;

	for (; mnts.byssh && t < end; t++)
		if (!t->open && !t->pause && (procruns(&t->ssh) || procruns(&t->proc) || t->again.on))
			return true;
	return false;
}

/* The ssh of a mount.  A connection of its own: sshd counts the sessions of one. */
static void
mountsshargs(struct mnt *t, const struct conf *c)
{
	struct buf b = { 0 };

	arg(&t->sshargs, "ssh");
	argopt(&t->sshargs, "-F", "%s/ssh.config", c->dir);
	argwords(&t->sshargs, "-axT -o ControlMaster=no -o ControlPath=none -o ConnectTimeout=30 -o LogLevel=ERROR");
	arg(&t->sshargs, "%s", guesthostname(c->name));
	bufputs(&b, "sh -c ");
	bufquote(&b, mountscript);
	bufputs(&b, " sh ");
	bufquote(&b, t->m->mountpoint);
	bufputc(&b, ' ');
	bufquote(&b, sshfsoptions(t->m));
	bufputc(&b, ' ');
	bufquote(&b, mounttag(t->m, MTSSHFS));
	arg(&t->sshargs, "%s", b.s);
	buffree(&b);
}

/* ---- virtiofs ---- */

/* QEMU lives, and a virtiofsd does not. */
static void
mountdead(struct timer *tm)
{
	struct mnt *t = tm->arg;

	if (mnts.over)
		return;
	error("virtiofsd of the mount %s has ended%s%s: the guest cannot get at it any more, and what uses it there hangs "
	    "(hint: `limactl restart` brings it back)", t->m->location, t->status ? ", " : "", t->status ? ended(t->status) : "");
	mnts.changed(false);
}

static void
mountfsended(struct proc *p, int st)
{
	struct mnt *t = p->arg;

	t->open = false;
	t->status = st;
	timerset(&t->again, 1000);      /* or QEMU's end was first, and we only hear of it later */
}

/* Start the virtiofsds, before QEMU.  Their sockets listen already, so QEMU need
 * not wait.  False while those of a QEMU that failed are still there. */
static bool
mountfs(void)
{
	struct mnt *t = mnts.v, *end = t + mnts.n;
	struct job j = { .session = true, .fd = { NOFD, 2, 2 } };
	bool run = false;

	if (mnts.kind != MTVIRTIOFS)
		return true;
	for (; t < end; t++) {
		run |= procruns(&t->proc);
		prockill(&t->proc, SIGKILL);
	}
	for (t = mnts.v; !run && t < end; t++) {
		if (t->m->lost)
			continue;
		j.argv = t->server.v;
		j.pass = listenunix(t->sock);
		if (procstart(&t->proc, &j, mountfsended) < 0)
			error("serve the mount %s:", t->m->location);
		else
			t->open = true;
		close(j.pass);
	}
	return !run;
}

/* Can a process have a /proc of its own, as virtiofsd wants?  Not in a container
 * that hides parts of it. */
static bool
ownproc(void)
{
	pid_t pid = fork();
	int st = 1;

	if (pid == 0) {
		if (unshare(CLONE_NEWPID|CLONE_NEWNS) < 0 || (pid = fork()) < 0)
			_exit(1);
		if (pid == 0)
			_exit(mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL) < 0);
		_exit(waitpid(pid, &st, 0) < 0 || st);
	}
	return pid > 0 && waitpid(pid, &st, 0) == pid && st == 0;
}

/* Keep all capabilities, which are those of our own user namespace, over exec. */
static void
keepcaps(void)
{
	struct { uint32_t version; int pid; } head = { 0x20080522 /* _LINUX_CAPABILITY_VERSION_3 */, 0 };
	struct { uint32_t effective, permitted, inheritable; } caps[2] = { { 0, 0, 0 } };
	int i;

	if (syscall(SYS_capget, &head, caps) < 0)
		return;
	for (i = 0; i < 2; i++)
		caps[i].inheritable = caps[i].permitted;
	(void)syscall(SYS_capset, &head, caps);
	for (i = 0; i < 64; i++)
		(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
}

/* One id of ours is one of the guest's in our user namespace. */
static int
mapid(const char *file, long inside, long outside)
{
	char text[64];
	int fd = open(file, O_WRONLY|O_CLOEXEC), n = snprintf(text, sizeof text, "%ld %ld 1\n", inside, outside);
	int r = fd < 0 ? -1 : writeall(fd, text, (size_t)n);

	if (fd >= 0)
		close(fd);
	return r;
}

/* virtiofsd becomes the user of the guest whose request it serves, and can when
 * that is its own, the only one its user namespace has.  It shall stay who it is
 * and believe otherwise: so root in the guest makes files that are the user's, as
 * with sshfs.  What a user may do is decided in the guest. */
static void
staywho(void)
{
#ifdef SYS_setresuid32
	enum { UID = SYS_setresuid32, GID = SYS_setresgid32 };
#else
	enum { UID = SYS_setresuid, GID = SYS_setresgid };
#endif
	static const struct insn f[] = {
		{ 0x20, 0, 0, 0 },              /* load the call's number */
		{ 0x15, 1, 0, UID }, { 0x15, 0, 1, GID },
		{ 0x06, 0, 0, 0x00050000 },     /* do nothing, return 0 */
		{ 0x06, 0, 0, 0x7fff0000 },     /* allow */
	};

	if (!seccomp(f, LEN(f)))
		warn("seccomp: only the user can make files in the guest:");
}

/* Become virtiofsd of dir, with its socket as descriptor 3.  In a user namespace
 * the host's user has the guest's uid, so that what belongs to the one belongs to
 * the other, and virtiofsd may shut itself in without root.  It knows no
 * read-only shares, or not in each version: the kernel does. */
static _Noreturn void
servefs(const char *dir, uid_t guest, bool readonly)
{
	struct { uint64_t set, clr, propagation, userns; } attr = { .set = 1 /* MOUNT_ATTR_RDONLY */ };
	const char *prog = findhidden(virtiofsds), *p;
	long uid = geteuid(), gid = getegid(), inside;
	struct args a = { 0 }, help = { 0 };
	struct buf b = { 0 };
	bool rust, own;
	int fd;

	if (!prog)
		die("virtiofsd: not found");
	arg(&help, "%s", prog);
	arg(&help, "--help");
	(void)runto(help.v, NULL, &b, NOFD);
	rust = b.s && strstr(b.s, "--shared-dir");
	inside = rust ? 0 : (long)guest;        /* it wants to be root, and translates by itself in newer versions */
	if ((own = unshare(CLONE_NEWUSER|CLONE_NEWNS|CLONE_NEWIPC) == 0)) {
		if ((fd = open("/proc/self/setgroups", O_WRONLY|O_CLOEXEC)) >= 0) {
			(void)writeall(fd, "deny", 4);
			close(fd);
		}
		if (mapid("/proc/self/uid_map", inside, uid) < 0 || mapid("/proc/self/gid_map", inside, gid) < 0)
			die("map user %ld to the guest's:", uid);
		keepcaps();
		staywho();
	} else if (uid)
		die("virtiofsd needs root or a user namespace, which this host refuses; `mountType: reverse-sshfs` needs neither:");
	else
		own = unshare(CLONE_NEWNS|CLONE_NEWIPC) == 0;
	if (own && (mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL) < 0 || mount(dir, dir, NULL, MS_BIND|MS_REC, NULL) < 0))
		die("bind %s:", dir);
	if (readonly && (!own || syscall(442 /* mount_setattr */, AT_FDCWD, dir, 0x8000 /* AT_RECURSIVE */, &attr, sizeof attr) < 0))
		die("%s cannot be shared read-only here (Linux 5.12 or later, and the right to mount); reverse-sshfs can:", dir);
	arg(&a, "%s", prog);
	arg(&a, "--fd=3");
	if (rust) {
		arg(&a, "--log-level=error");
		arg(&a, "--shared-dir=%s", dir);
		arg(&a, "--sandbox=%s", ownproc() ? "namespace" : "chroot");
		if (strstr(b.s, "--translate-uid")) {
			arg(&a, "--translate-uid=map:%ld:0:1", (long)guest);
			arg(&a, "--translate-gid=map:%ld:0:1", (long)guest);
		}
	} else {
		b.len = 0;
		for (p = dir; *p; p++) {
			if (*p == ',' || *p == '\\')
				bufputc(&b, '\\');
			bufputc(&b, *p);
		}
		arg(&a, "-f");
		argopt(&a, "-o", "log_level=err,sandbox=%s", ownproc() ? "namespace" : "chroot");
		argopt(&a, "-o", "source=%s", b.s);
		arg(&a, "--rlimit-nofile=0");
	}
	execv(prog, a.v);
	die("run %s:", prog);
}

/* Prepare the servers of a configuration, or adopt those that run; one that is
 * joined to an ssh, of which we know nothing, is ended.  A directory that
 * cannot be made is left out of the guest.  adopted: QEMU runs.  changed: told of
 * mounts that come and go and are no ports. */
static void
mountinit(const struct conf *c, bool adopted, void (*changed)(bool came))
{
	struct mount *m = c->mounts.v;
	const char *pidfile;
	struct mnt *t;
	pid_t pid;

	mnts.kind = mountkind(c);
	mnts.byssh = !c->agent && mnts.kind == MTSSHFS;
	mnts.changed = changed;
	mnts.v = yalloc(&perm, c->mounts.n * sizeof *mnts.v);
	for (; mnts.n < c->mounts.n; mnts.n++, m++) {
		t = &mnts.v[mnts.n];
		pidfile = keep("%s/mnt.%zu.pid", c->dir, mnts.n);
		*t = (struct mnt){ .m = m, .sock = keep("%s/%s%zu.sock", c->dir, mnts.kind == MTVIRTIOFS ? "virtiofsd-" : "mnt.", mnts.n),
		    .again = { .due = mnts.kind == MTVIRTIOFS ? mountdead : mnts.byssh ? mountlink : mountserve, .arg = t },
		    .proc = { .arg = t, .ended = mnts.kind == MTVIRTIOFS ? mountfsended : mnts.byssh ? mountleft : mountended },
		    .ssh.arg = t, .words = { .fd = -1, .arg = t }, .open = mnts.kind == MT9P };
		if ((m->lost = mountdir(m) < 0))
			warn("cannot create %s, so the guest does not get it:", bq(m->location));
		if (mnts.kind == MT9P)
			continue;
		arg(&t->server, "%s", selfpath());
		argwords(&t->server, mnts.kind == MTVIRTIOFS ? "--log-format=json virtiofsd --pidfile" : "--log-format=json sftp --pidfile");
		arg(&t->server, "%s", pidfile);
		arg(&t->server, "--guest-uid=%lld", c->uid);
		if (!m->writable)
			arg(&t->server, "--read-only");
		if (m->followsymlinks && mnts.kind == MTSSHFS)
			arg(&t->server, "--follow-symlinks");
		if (byopenssh(m) && mnts.kind == MTSSHFS) {
			arg(&t->server, "--openssh");
			warn("%s is served by openssh-sftp-server: through it the guest can %s all that you can, and owners are those of the host",
			    bq(m->location), m->writable ? "change" : "read");
		}
		arg(&t->server, "--");
		arg(&t->server, "%s", m->location);
		if ((pid = lockholder(pidfile)) > 0)
			t->open = procwatch(&t->proc, pid, false) == 0 && mnts.kind == MTVIRTIOFS;
		else if (adopted && mnts.kind == MTVIRTIOFS && !m->lost)
			timerset(&t->again, 0);
		if (!mnts.byssh)
			continue;
		t->dropped = true;
		prockill(&t->proc, SIGKILL);
		mountsshargs(t, c);
	}
}

/* Is a mount that went gone for good? */
static bool
mountfinal(void)
{
	return mnts.kind == MTVIRTIOFS;
}

/* QEMU is gone: servers end as they should. */
static void
mountover(void)
{
	mnts.over = true;
}

/* Remove what the servers of a run leave. */
static void
mountclean(void)
{
	size_t i;

	for (i = 0; i < mnts.n; i++) {
		(void)unlink(mnts.v[i].sock);
		(void)unlink(keep("%.*s/mnt.%zu.pid", (int)(strrchr(mnts.v[i].sock, '/') - mnts.v[i].sock), mnts.v[i].sock, i));
		argsfree(&mnts.v[i].server);
		argsfree(&mnts.v[i].sshargs);
	}
}

/* The location of mount i, or NULL beyond the last; there: the guest has it. */
static const char *
mountstate(size_t i, bool *there)
{
	if (i >= mnts.n)
		return NULL;
	*there = mnts.v[i].open;
	return mnts.v[i].m->location;
}

/* ---- 25. Guest agent ---------------------------------------------------- */

/* What the guest agent says and what it is told; guestagent.c has the lines.
 * They go over a virtio-serial port, on the host a socket that QEMU listens on.
 * QMP tells when the guest opens its end, and then we say hello.  The guest is
 * hostile: a line becomes a struct said, or nothing. */


struct port {
	bool udp, v6;
	uint16_t num;
	uint8_t addr[16];               /* as on the wire; IPv4 in the first 4, the rest is 0 */
};
struct said {
	enum { SAIDHELLO, SAIDBEGIN, SAIDEND, SAIDNEW, SAIDGONE, SAIDTIME } what;
	struct port port;               /* of SAIDNEW and SAIDGONE */
	long long ms;                   /* SAIDTIME: how far behind the clock was */
	bool set;                       /* it was set */
};
static struct {
	struct watch w;                 /* of the socket; fd -1: not connected */
	char line[256];
	size_t n;
	bool skip;                      /* the rest of a line that was too long */
	bool up;                        /* it has answered */
	struct watch clock;
	long long asked;                /* when the time was sent, */
	int tries;                      /* and how often in a row */
	void (*said)(const struct said *);
} ga = { .w.fd = -1, .clock.fd = -1 };

/* An address as text into p; v4-mapped ones are IPv4.  -1: it is none. */
static int
parseaddr(const char *s, struct port *p)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	memset(p->addr, 0, sizeof p->addr);
	p->v6 = false;
	if (inet_pton(AF_INET, s, p->addr) == 1)
		return 0;
	if (inet_pton(AF_INET6, s, p->addr) != 1)
		return -1;
	p->v6 = memcmp(p->addr, mapped, sizeof mapped) != 0;
	if (!p->v6) {
		memcpy(p->addr, p->addr + 12, 4);
		memset(p->addr + 4, 0, 12);
	}
	return 0;
}

/* One line of the agent; -1 when it is none that we know. */
static int
parsesaid(const char *s, struct said *o)
{
	static const char *const words[] = { "lima-guestagent 1", "begin", "end" };
	char addr[INET6_ADDRSTRLEN];
	long long num;
	size_t n;

	*o = (struct said){ 0 };
	for (n = 0; n < LEN(words); n++)
		if (strcmp(s, words[n]) == 0) {
			o->what = n;
			return 0;
		}
	if (startswith(s, "time ")) {
		s += 5;
		n = strcspn(s, " ");
		if (n >= sizeof addr || !s[n])
			return -1;
		memcpy(addr, s, n);
		addr[n] = '\0';
		o->what = SAIDTIME;
		o->set = strcmp(s + n, " set") == 0;
		return parsenum(addr, -(1LL << 52), 1LL << 52, &o->ms);
	}
	if ((*s != '+' && *s != '-') || (!startswith(s + 1, " tcp ") && !startswith(s + 1, " udp ")))
		return -1;
	o->what = *s == '+' ? SAIDNEW : SAIDGONE;
	o->port.udp = s[2] == 'u';
	s += 6;
	n = strcspn(s, " ");
	if (n >= sizeof addr || !s[n] || parsenum(s + n + 1, 1, 65535, &num) < 0)
		return -1;
	memcpy(addr, s, n);
	addr[n] = '\0';
	o->port.num = (uint16_t)num;
	return parseaddr(addr, &o->port);
}

/* Tell it a line.  What it does not take, then false, is lost: it gets all anew
 * with hello. */
static bool PRINTF(1, 2)
gatell(const char *fmt, ...)
{
	char line[PATH_MAX + 128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	return ga.w.fd >= 0 && send(ga.w.fd, line, strlen(line), MSG_NOSIGNAL|MSG_DONTWAIT) > 0;
}

static void
gatimesend(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	ga.asked = now();
	if (ga.up)
		gatell("time %lld %ld\n", (long long)t.tv_sec, t.tv_nsec);
}

/* The host's time.  The guest sets its clock when that is wrong. */
static void
gatime(void)
{
	ga.tries = 0;
	gatimesend();
}

/* The guest opened or closed its end. */
static void
gaport(bool opened)
{
	ga.up = false;
	if (opened)
		gatell("\nhello 1\n");
}

static bool
gaanswers(void)
{
	return ga.up;
}

static void
gaclose(void)
{
	watchclose(&ga.w);
	ga.n = 0;
	ga.up = false;
}

static void
gaready(struct watch *w, short revents)
{
	char chunk[16384];
	struct said o;
	ssize_t n, i;

	(void)revents;
	/* once a turn: a guest that talks all the time is not alone here */
	n = recv(w->fd, chunk, sizeof chunk, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		gaclose();
	for (i = 0; i < n; i++) {
		if (chunk[i] != '\n') {
			if (ga.n == sizeof ga.line - 1)
				ga.skip = true;
			else
				ga.line[ga.n++] = chunk[i];
			continue;
		}
		ga.line[ga.n] = '\0';
		if (!ga.skip && strlen(ga.line) == ga.n && parsesaid(ga.line, &o) == 0) {
			ga.up |= o.what == SAIDHELLO;
			/* what was long on the way is wrong by that: a guest just
			 * loaded from a snapshot, or a busy host */
			if (o.what == SAIDTIME && now() - ga.asked > clockslack && ga.tries++ < clocktries)
				gatimesend();
			if (ga.up)
				ga.said(&o);
		}
		ga.n = 0;
		ga.skip = false;
	}
}

/* The clock of the host was set, or the host slept: timerfd_create(2). */
static void
clockset(struct watch *w, short revents)
{
	static const struct itimerspec never = { .it_value.tv_sec = LONG_MAX };
	uint64_t n;

	(void)revents;
	if (read(w->fd, &n, sizeof n) < 0 && errno == ECANCELED)
		gatime();
	(void)timerfd_settime(w->fd, TFD_TIMER_ABSTIME|TFD_TIMER_CANCEL_ON_SET, &never, NULL);
}

/* Connect to the port, whose socket is QEMU's; said gets each line. */
static void
gaconnect(const char *path, void (*said)(const struct said *))
{
	int fd;

	ga.said = said;
	if (ga.w.fd < 0 && (fd = connectunix(path, SOCK_NONBLOCK)) >= 0)
		watchadd(&ga.w, fd, POLLIN, gaready);
	if (ga.w.fd < 0)
		warn("connect %s:", path);
	if (ga.clock.fd < 0 && (fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC|TFD_NONBLOCK)) >= 0) {
		watchadd(&ga.clock, fd, POLLIN, clockset);
		clockset(&ga.clock, 0);
	}
}

/* ---- changes of files ---- */

/* mountInotify: a change on the host wakes who watches the file in the guest.  The
 * directories of writable mounts are watched, each by itself, for inotify(7)
 * knows no trees; the agent sets the times of what has changed to what they are.
 * That comes back as a change of ours when the mount passes it on: what looks as
 * it did when it was last sent is not sent again. */

#define INOTES 4096                     /* files remembered, a power of 2 */
static const uint32_t inomask = IN_CREATE|IN_MODIFY|IN_CLOSE_WRITE|IN_ATTRIB|IN_MOVED_TO|IN_ONLYDIR|IN_EXCL_UNLINK;
static struct {
	const struct conf *c;
	struct watch w;
	struct inodir { int wd; char *path; } *dirs;    /* that are watched, by wd */
	size_t n;
	struct inotodo { char *path; bool fresh; } *todo; /* to be; fresh: what is in it is news */
	size_t ntodo;
	struct inote { char *path; uint64_t look; bool due; } *notes;
	size_t nnotes;
	struct timer scan, flush;
	bool full, slow, odd;           /* said so */
} ino;

/* What of path lies in a mount, NULL: nothing does. */
static const char *
inomount(const struct mount *m, const char *path)
{
	return m->writable && !m->lost ? below(path, m->location) : NULL;
}

/* Open path with a mount as the root: the guest may have put a link in the way. */
static int
inoopen(const char *path, int flags)
{
	const struct mount *m = ino.c->mounts.v, *end = m + ino.c->mounts.n;
	struct fx s = { 0 };
	const char *p;
	int fd = -1;

	for (; fd < 0 && m < end; m++)
		if ((p = inomount(m, path)) && (s.root = open(m->location, O_PATH|O_DIRECTORY|O_CLOEXEC)) >= 0) {
			fd = fxopen(&s, p[0] && p[1] ? p + 1 : ".", flags, 0);
			close(s.root);
		}
	return fd;
}

/* Remember that a file has changed.  Takes path. */
static void
inonote(char *path)
{
	uint64_t h = 14695981039346656037u;     /* FNV-1a */
	const char *p;
	size_t i;

	for (p = path; *p; p++)
		h = (h ^ (unsigned char)*p) * 1099511628211u;
	if (ino.nnotes > INOTES * 3 / 4) {
		for (i = 0; i < INOTES; i++) {
			if (ino.notes[i].due && !ino.slow) {
				ino.slow = true;
				warn("mountInotify: files change faster than the guest hears of it; it misses some");
			}
			free(ino.notes[i].path);
			ino.notes[i] = (struct inote){ 0 };
		}
		ino.nnotes = 0;
	}
	for (i = h & (INOTES - 1); ino.notes[i].path && strcmp(ino.notes[i].path, path) != 0; i = (i + 1) & (INOTES - 1))
		;
	if (ino.notes[i].path) {
		free(path);
	} else {
		ino.notes[i].path = path;
		ino.nnotes++;
	}
	ino.notes[i].due = true;
	if (!ino.flush.on)
		timerset(&ino.flush, inotifypause);
}

/* Tell the agent of a file, in each mount that has it; false: later again. */
static bool
inotell(const char *path, const struct stat *st)
{
	const struct mount *m = ino.c->mounts.v, *end = m + ino.c->mounts.n;
	const char *p;

	if (strpbrk(path, "\n\r")) {
		if (!ino.odd)
			warn("mountInotify: the guest does not hear of changes of files with line breaks in their names, such as %s", bq(path));
		ino.odd = true;
		return true;
	}
	for (; m < end; m++)
		if ((p = inomount(m, path)) && strlen(m->mountpoint) + strlen(p) < PATH_MAX &&
		    !gatell("inotify %lld %ld %s%s\n", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, m->mountpoint, p))
			return false;
	return true;
}

static void
inoflush(struct timer *t)
{
	struct inote *p = ino.notes, *end = p + INOTES;
	struct stat st;
	uint64_t look;
	int fd;

	for (; p < end; p++) {
		if (!p->due)
			continue;
		p->due = false;
		if (!ga.up || (fd = inoopen(p->path, O_PATH|O_NOFOLLOW)) < 0)
			continue;
		/* a link's target may lie anywhere in the guest */
		if (fxdone(fstat(fd, &st), fd, -1) < 0 || S_ISLNK(st.st_mode))
			continue;
		look = ((uint64_t)st.st_mtim.tv_sec * 1000000007u + (uint64_t)st.st_mtim.tv_nsec) * 31 + (uint64_t)st.st_ino;
		look = (look * 31 + st.st_mode) * 31 + (uint64_t)st.st_size;
		if (look == p->look)
			continue;
		if (!inotell(p->path, &st)) {
			p->due = true;
			timerset(t, inotifypause);
			return;
		}
		p->look = look;
	}
}

/* Watch a directory later.  Takes path. */
static void
inolater(char *path, bool fresh)
{
	if (ino.n + ino.ntodo >= (size_t)inotifymax) {
		if (!ino.full)
			warn("mountInotify: more than %d directories: the guest does not hear of changes in %s and others", inotifymax, bq(path));
		ino.full = true;
		free(path);
		return;
	}
	ino.todo = xrealloc(ino.todo, ino.ntodo + 1, sizeof *ino.todo);
	ino.todo[ino.ntodo++] = (struct inotodo){ path, fresh };
	if (!ino.scan.on)
		timerset(&ino.scan, 1);
}

/* The index of a watch, or where it belongs. */
static size_t
inofind(int wd)
{
	size_t lo = 0, hi = ino.n, mid;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (ino.dirs[mid].wd < wd)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static char *
inopath(const char *dir, const char *name)
{
	size_t n = strlen(dir), len = n + strlen(name) + 2;
	char *r = xrealloc(NULL, 1, len);

	snprintf(r, len, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
	return r;
}

/* Watch one directory, and see which are in it.  Takes what it is given. */
static void
inoscan(struct inotodo d)
{
	int wd, fd = inoopen(d.path, O_RDONLY|O_DIRECTORY|O_NOFOLLOW);
	char path[40];
	struct dirent *e;
	struct stat st;
	DIR *dp;
	size_t i;

	if (fd < 0) {
		free(d.path);
		return;
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	wd = inotify_add_watch(ino.w.fd, path, inomask);
	if (wd < 0 && errno == ENOSPC && !ino.full) {
		ino.full = true;
		warn("mountInotify: the guest does not hear of changes in %s and others (raise fs.inotify.max_user_watches)", bq(d.path));
	}
	if (wd < 0 || !(dp = fdopendir(fd))) {
		close(fd);
		free(d.path);
		return;
	}
	i = inofind(wd);
	if (i == ino.n || ino.dirs[i].wd != wd) {
		ino.dirs = xrealloc(ino.dirs, ino.n + 1, sizeof *ino.dirs);
		memmove(ino.dirs + i + 1, ino.dirs + i, (ino.n++ - i) * sizeof *ino.dirs);
	} else
		free(ino.dirs[i].path);         /* it was moved */
	ino.dirs[i] = (struct inodir){ wd, d.path };
	while ((e = readdir(dp))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && fstatat(dirfd(dp), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)))
			inolater(inopath(d.path, e->d_name), d.fresh);
		if (d.fresh)
			inonote(inopath(d.path, e->d_name));
	}
	closedir(dp);
}

/* A few at a time, for the agent has other things to do. */
static void
inoscandue(struct timer *t)
{
	long long end = now() + 5;

	while (ino.ntodo && now() < end)
		inoscan(ino.todo[--ino.ntodo]);
	if (ino.ntodo)
		timerset(t, 1);
}

/* Watch the mounts that can be written to, at first or again. */
static void
inoroots(void)
{
	const struct mount *m = ino.c->mounts.v;
	size_t i;

	for (i = 0; i < ino.c->mounts.n; i++, m++)
		if (m->writable && !m->lost)
			inolater(inopath("", m->location + 1), false);
}

static void
inoready(struct watch *w, short revents)
{
	_Alignas(struct inotify_event) char chunk[16384];
	const struct inotify_event *e;
	ssize_t n = read(w->fd, chunk, sizeof chunk), at;
	size_t i;

	(void)revents;
	for (at = 0; at < n; at += (ssize_t)(sizeof *e + e->len)) {
		e = (const struct inotify_event *)(const void *)(chunk + at);
		if (e->mask & IN_Q_OVERFLOW) {
			if (!ino.slow)
				warn("mountInotify: files change faster than they can be looked at; the guest misses some");
			ino.slow = true;
			inoroots();             /* for directories that we missed */
			continue;
		}
		i = inofind(e->wd);
		if (i == ino.n || ino.dirs[i].wd != e->wd)
			continue;
		if (e->mask & IN_IGNORED) {
			free(ino.dirs[i].path);
			memmove(ino.dirs + i, ino.dirs + i + 1, (--ino.n - i) * sizeof *ino.dirs);
		} else if (e->len) {
			if (e->mask & IN_ISDIR && e->mask & (IN_CREATE|IN_MOVED_TO))
				inolater(inopath(ino.dirs[i].path, e->name), true);
			inonote(inopath(ino.dirs[i].path, e->name));
		}
	}
}

/* Begin, when the configuration asks for it. */
static void
inostart(const struct conf *c)
{
	const struct mount *m = c->mounts.v;
	size_t i;
	int fd;

	if (!c->agent || !c->inotify)
		return;
	if ((fd = inotify_init1(IN_CLOEXEC|IN_NONBLOCK)) < 0) {
		warn("mountInotify (raise fs.inotify.max_user_instances):");
		return;
	}
	ino.c = c;
	ino.notes = xrealloc(NULL, INOTES, sizeof *ino.notes);
	memset(ino.notes, 0, INOTES * sizeof *ino.notes);
	ino.scan.due = inoscandue;
	ino.flush.due = inoflush;
	for (i = 0; i < c->mounts.n; i++)
		if (m[i].writable && !m[i].lost)
			info("enable inotify for writable mount: %s", m[i].location);
	watchadd(&ino.w, fd, POLLIN, inoready);
	inoroots();
}

/* Free what it has. */
static void
inoend(void)
{
	size_t i;

	for (i = 0; i < ino.n; i++)
		free(ino.dirs[i].path);
	for (i = 0; i < ino.ntodo; i++)
		free(ino.todo[i].path);
	for (i = 0; ino.notes && i < INOTES; i++)
		free(ino.notes[i].path);
	free(ino.dirs);
	free(ino.todo);
	free(ino.notes);
	ino.notes = NULL;
}

/* ---- 26. Port forwards -------------------------------------------------- */

/* From listeners of the guest and rules to listeners of the host.  What is
 * wanted (refs) and what is there (state) are kept apart: fwdsync() brings the
 * second to the first by one request at a time, and whatever happens to a
 * carrier only changes the second.
 *
 * TCP and unix sockets are the ssh master's, asked on its control socket by the
 * protocol of OpenSSH's PROTOCOL.mux: a hundred requests go in one write, where
 * `ssh -O forward` is a process each.  UDP is QEMU's user network, asked by QMP;
 * it reaches the guest's own address only, so what listens on the guest's
 * loopback cannot be reached.
 *
 * ha.forwards says what was asked for, for the agent that adopts the master: a
 * line before each request to open, another after a close.  It may name too
 * much and never too little. */

enum { UNIXPORT = -2 };                 /* PROTOCOL.mux: the host is a path */
struct end {
	int port;
	char host[UNIXPATHMAX];
};
enum fstate { FSHUT, FOPENING, FOPEN, FCLOSING, FTAKEN, FDENIED };
struct fwd {
	struct fwd *next;
	bool udp, reverse;
	bool qemu;                      /* carried by QEMU's network, not by ssh */
	bool fixed;                     /* by configuration, whoever listens */
	bool told;                      /* that it cannot be had */
	unsigned refs;                  /* listeners, or the configuration, that want it */
	enum fstate st;
	uint32_t rid;                   /* of the request under way */
	size_t rule;                    /* index, for messages; beyond the last: automatic */
	struct end host, guest;
	struct end to;                  /* the guest's end as it was asked for */
};
struct listener {
	struct port port;
	struct fwd *to;                 /* NULL: not forwarded */
	bool seen;                      /* in the list that is being told */
};
static struct {
	const struct conf *c;
	const long long *sshport;       /* of the host; not forwarded */
	struct listener *l;
	size_t nl;
	struct fwd *all;
	struct watch mux;               /* the master's control socket; fd -1: not connected */
	struct buf in, out;
	bool greeted;                   /* by the master */
	bool guestready;                /* old sockets are removed there */
	bool held;                      /* adopted ones stay until the agent has told its list */
	uint32_t rid;
	struct qmp *qmp;                /* NULL: does not answer yet */
	struct timer retry;
	const char *path, *newpath;     /* of the journal */
	int journal;
	off_t noted;                    /* bytes in it */
	bool quiet[2];                  /* TCP, UDP: nothing of it is forwarded at all */
	const char *udpmode;            /* as told to the agent */
	int lines;                      /* logged about forwards */
	void (*event)(const char *json);
} fw = { .mux.fd = -1, .journal = -1 };

static const char *const protoname[2][2] = { { "tcp", "TCP" }, { "udp", "UDP" } };

static bool
unspecified(const struct port *p)
{
	static const uint8_t zero[16];

	return memcmp(p->addr, zero, sizeof zero) == 0;
}

static void
portaddr(const struct port *p, char out[INET6_ADDRSTRLEN])
{
	(void)inet_ntop(p->v6 ? AF_INET6 : AF_INET, p->addr, out, INET6_ADDRSTRLEN);
}

static void
endset(struct end *e, const char *hostname, long long port)
{
	e->port = (int)port;
	snprintf(e->host, sizeof e->host, "%s", hostname);
}

static bool
endsame(const struct end *a, const struct end *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* As in messages and events: ip:port, [ip6]:port, or a path.  Good until the
 * fourth call from here. */
static const char *
endtext(const struct end *e)
{
	static char ring[4][UNIXPATHMAX + 16];
	static unsigned turn;
	char *s = ring[turn++ % LEN(ring)];

	snprintf(s, sizeof *ring, e->port == UNIXPORT ? "%s" : strchr(e->host, ':') ? "[%s]:%d" : "%s:%d", e->host, e->port);
	return s;
}

static const char *
porttext(const struct port *p)
{
	struct end e;

	portaddr(p, e.host);
	e.port = p->num;
	return endtext(&e);
}

/* Does a rule's address take a listener's?  spec/runtime.md 9.3. */
static bool
addrfits(const struct forward *f, const struct port *p)
{
	static const uint8_t loop6[16] = { [15] = 1 };
	struct port want;

	if (unspecified(p))
		return true;
	if (parseaddr(f->guestip, &want) < 0)
		return false;
	if (want.v6 == p->v6 && memcmp(want.addr, p->addr, sizeof want.addr) == 0)
		return true;
	if (unspecified(&want) && f->guestzero <= 0)
		return true;
	return p->v6 && memcmp(p->addr, loop6, sizeof loop6) == 0 && strcmp(f->guestip, "127.0.0.1") == 0;
}

static bool
neverforward(const struct port *p)
{
	size_t i;

	for (i = 0; p->udp && i < LEN(neverudp); i++)
		if (neverudp[i] == p->num)
			return true;
	return false;
}

/* The rule for a listener of the guest: its index, that of none behind the last
 * for the automatic one, -1 when it is not forwarded.  host: where it goes. */
static int
matchport(const struct conf *c, long long sshport, const struct port *p, struct end *hostend)
{
	static const struct forward automatic = { .guestip = "127.0.0.1", .hostip = "127.0.0.1",
	    .guestports = { 1, 65535 }, .hostports = { 1, 65535 }, .proto = "any" };
	const struct forward *f;
	struct port at;
	size_t i;

	if (p->num == 22 || p->num == sshport)
		return -1;
	for (i = 0; i < c->forwards.n + (c->autoforward && !neverforward(p)); i++) {
		f = i < c->forwards.n ? (const struct forward *)c->forwards.v + i : &automatic;
		if ((f->guestsocket && *f->guestsocket) || p->num < f->guestports.from || p->num > f->guestports.to ||
		    (strcmp(f->proto, "any") != 0 && strcmp(f->proto, protoname[p->udp][0]) != 0) || !addrfits(f, p))
			continue;
		if (f->ignore > 0) {
			/* what blocks one address cannot block a wildcard */
			if (unspecified(p) && parseaddr(f->guestip, &at) == 0 && !unspecified(&at))
				continue;
			return -1;
		}
		if (f->hostsocket && strlen(f->hostsocket) >= UNIXPATHMAX)
			return -1;
		if (f->hostsocket && *f->hostsocket)
			endset(hostend, f->hostsocket, UNIXPORT);
		else
			endset(hostend, f->hostip, p->num + f->hostports.from - f->guestports.from);
		return (int)i;
	}
	return -1;
}

/* Log and event of a listener; the guest can make them grow, so they end. */
static void
fwdsay(const char *type, const struct port *p, const struct end *hostend)
{
	static const struct { const char *type, *fmt; } t[] = {
		{ "forwarding", "Forwarding %s from %s to %s" },
		{ "stopping", "Stopping forwarding %s from %s to %s" },
		{ "not-forwarding", "Not forwarding %s %s%s" },
	};
	struct buf b = { 0 };
	size_t i;

	if (fw.lines++ >= manyforwards) {
		if (fw.lines == manyforwards + 1)
			warn("The guest opens and closes ports all the time: no more of it is logged");
		return;
	}
	for (i = 0; strcmp(t[i].type, type) != 0; i++)
		;
	info(t[i].fmt, protoname[p->udp][1], porttext(p), hostend ? endtext(hostend) : "");
	bufprintf(&b, "{\"type\":\"%s\",\"protocol\":\"%s\",\"guestAddr\":\"%s\"", type, protoname[p->udp][0], porttext(p));
	if (hostend) {
		bufputs(&b, ",\"hostAddr\":");
		yjsonstr(&b, endtext(hostend), strlen(endtext(hostend)));
	}
	bufputc(&b, '}');
	fw.event(b.s);
	buffree(&b);
}

/* ---- the journal ---- */

/* Its lines: + or -, kind, host, port, guest, port; a TAB between. */
static void
fwdnote(char sign, const struct fwd *f)
{
	struct buf b = { 0 };

	bufprintf(&b, "%c\t%s\t%s\t%d\t%s\t%d\n", sign, f->udp ? "udp" : f->reverse ? "reverse" : "tcp",
	    f->host.host, f->host.port, f->to.host, f->to.port);
	if (fw.journal >= 0 && writeall(fw.journal, b.s, b.len) == 0)
		fw.noted += (off_t)b.len;
	buffree(&b);
}

/* Write it anew with what is there, and replace it as a whole. */
static void
fwdnoteall(void)
{
	const struct fwd *f;
	int fd;

	if (!fw.path)                   /* ended before it began */
		return;
	if ((fd = open(fw.newpath, O_WRONLY|O_CREAT|O_TRUNC|O_APPEND|O_CLOEXEC|O_NOFOLLOW, 0600)) < 0) {
		warn("create %s:", fw.newpath);
		return;
	}
	if (fw.journal >= 0)
		close(fw.journal);
	fw.journal = fd;
	fw.noted = 0;
	for (f = fw.all; f; f = f->next)
		if (f->st == FOPENING || f->st == FOPEN || f->st == FCLOSING)
			fwdnote('+', f);
	if (rename(fw.newpath, fw.path) < 0)
		warn("rename %s to %s:", fw.newpath, fw.path);
}

/* The forward with this end on the host, a new one when there is none. */
static struct fwd *
fwdget(bool udp, bool reverse, const struct end *hostend, const struct end *guest)
{
	struct fwd *f;

	for (f = fw.all; f; f = f->next)
		if (f->udp == udp && f->reverse == reverse && endsame(reverse ? &f->guest : &f->host, reverse ? guest : hostend))
			break;
	if (!f) {
		f = xrealloc(NULL, 1, sizeof *f);
		*f = (struct fwd){ .next = fw.all, .udp = udp, .qemu = udp, .reverse = reverse, .host = *hostend, .guest = *guest };
		fw.all = f;
	}
	return f;
}

static void
fwdfree(struct fwd *f)
{
	struct fwd **p;

	for (p = &fw.all; *p != f; p = &(*p)->next)
		;
	*p = f->next;
	free(f);
}

/* A line of the journal of an agent that died. */
static void
journalline(char *line)
{
	struct end h, g;
	char *v[6];
	long long hp, gp;
	struct fwd *f;
	size_t i;

	for (i = 0; i < LEN(v); i++)
		if (!(v[i] = strsep(&line, "\t")))
			return;
	if (line || parsenum(v[3], UNIXPORT, 65535, &hp) < 0 || parsenum(v[5], UNIXPORT, 65535, &gp) < 0)
		return;
	endset(&h, v[2], hp);
	endset(&g, v[4], gp);
	f = fwdget(strcmp(v[1], "udp") == 0, strcmp(v[1], "reverse") == 0, &h, &g);
	f->to = g;
	f->st = FOPEN;
	if (*v[0] == '-')
		fwdfree(f);
}

static void
readjournal(const char *path)
{
	struct buf b = { 0 };
	char *p, *line;

	if (readfile(path, &b, 16 << 20) == 0)
		for (p = b.s; (line = strsep(&p, "\n")) && p; )
			journalline(line);
	buffree(&b);
}

/* ---- the carriers ---- */

static void fwdsync(struct fwd *f);

/* fwdsync() may free any of them. */
static void
syncall(void)
{
	struct fwd *f, *next;

	for (f = fw.all; f; f = next) {
		next = f->next;
		fwdsync(f);
	}
}

/* ssh leaves its sockets behind. */
static void
rmsocket(const struct fwd *f)
{
	if (f->host.port == UNIXPORT && !f->reverse)
		(void)unlink(f->host.host);
}

/* The answer to what was asked for f; err: what went wrong, NULL: nothing. */
static void
fwdanswer(struct fwd *f, const char *err)
{
	bool opening = f->st == FOPENING;

	f->rid = 0;
	if (!opening) {
		f->st = FSHUT;
		fwdnote('-', f);
		rmsocket(f);
	} else if (!err) {
		f->st = FOPEN;
		if (f->told)
			info("Host port %s is free now and forwarded to", endtext(&f->host));
		f->told = false;
	} else {
		f->st = FTAKEN;
		fwdnote('-', f);
		if (!f->told)
			warn("Cannot forward %s %s (host) to %s (guest): %s; tried again every %lld seconds",
			    protoname[f->udp][1], endtext(&f->host), endtext(&f->guest), err, takenwait / 1000);
		f->told = true;
		timerset(&fw.retry, takenwait);
	}
	fwdsync(f);
}

static void
muxend(struct buf *b, const struct end *e)
{
	/* ssh's word for all addresses of both families */
	const char *s = strcmp(e->host, "0.0.0.0") == 0 || strcmp(e->host, "::") == 0 ? "*" : e->host;

	put32be(b, (uint32_t)strlen(s));
	bufputs(b, s);
	put32be(b, (uint32_t)e->port);
}

static void
muxflush(void)
{
	ssize_t n = 0;

	if (fw.out.len && (n = send(fw.mux.fd, fw.out.s, fw.out.len, MSG_NOSIGNAL|MSG_DONTWAIT)) > 0)
		memmove(fw.out.s, fw.out.s + n, fw.out.len -= (size_t)n);
	fw.mux.events = fw.out.len ? POLLIN|POLLOUT : POLLIN;
}

/* A packet of the protocol: its length, then body, which is freed. */
static void
muxsend(struct buf *body)
{
	put32be(&fw.out, (uint32_t)body->len);
	bufadd(&fw.out, body->s, body->len);
	buffree(body);
	muxflush();
}

enum { MUXHELLO = 1, MUXOPEN = 0x10000006, MUXCLOSE = 0x10000007, MUXLOCAL = 1, MUXREMOTE = 2,
	MUXDENIED = 2, MUXFAILURE = 3 };        /* of an answer, which has bit 31 set */

static void
muxask(struct fwd *f, bool doopen)
{
	struct buf b = { 0 };

	if (!++fw.rid)
		fw.rid = 1;
	f->rid = fw.rid;
	put32be(&b, doopen ? MUXOPEN : MUXCLOSE);
	put32be(&b, f->rid);
	put32be(&b, f->reverse ? MUXREMOTE : MUXLOCAL);
	muxend(&b, f->reverse ? &f->to : &f->host);
	muxend(&b, f->reverse ? &f->host : &f->to);
	muxsend(&b);
}

static void
hostfwdanswer(void *arg, const struct ynode *v, const char *err)
{
	struct fwd *f = arg;

	/* the monitor for humans says nothing, or what went wrong */
	fwdanswer(f, !v ? err : f->st == FOPENING && v->kind == Y_STR && v->len ? "QEMU refuses it" : NULL);
	syncall();                      /* one may have waited for a free place */
}

static int
hostfwdask(struct fwd *f, bool doopen)
{
	char s[160];

	/* all of it numbers of ours */
	snprintf(s, sizeof s, "{\"command-line\":\"hostfwd_%s net0 %s:%s:%d", doopen ? "add" : "remove", protoname[f->udp][0], f->host.host, f->host.port);
	if (doopen)
		snprintf(s + strlen(s), sizeof s - strlen(s), "-%s:%d", slirpaddress, f->to.port);
	snprintf(s + strlen(s), sizeof s - strlen(s), "\"}");
	return qmpask(fw.qmp, "human-monitor-command", s, hostfwdanswer, f);
}

/* Can the host's end be had?  0 or errno.  ssh and QEMU would not say why not. */
static int
bindable(const struct fwd *f)
{
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)f->host.port) };
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)f->host.port) };
	bool v6 = inet_pton(AF_INET6, f->host.host, &a6.sin6_addr) == 1;
	int fd, on = 1, e = 0;

	if (!v6 && inet_pton(AF_INET, f->host.host, &a4.sin_addr) != 1)
		return EINVAL;
	if (v6 && f->qemu)
		return EAFNOSUPPORT;            /* QEMU's is IPv4 alone */
	if ((fd = socket(v6 ? AF_INET6 : AF_INET, (f->udp ? SOCK_DGRAM : SOCK_STREAM)|SOCK_CLOEXEC, 0)) < 0)
		return errno;
	if (!f->udp)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, v6 ? (void *)&a6 : (void *)&a4, v6 ? sizeof a6 : sizeof a4) < 0 || (!f->udp && listen(fd, 1) < 0))
		e = errno;
	close(fd);
	return e;
}

/* The same of a unix socket; makes its directory.  Nothing but a socket that
 * nobody listens on is removed. */
static int
hostpath(const char *path)
{
	char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
	struct stat st;
	mode_t mask;
	int e = 0;

	if (slash && slash > dir) {
		*slash = '\0';
		mask = umask(027);              /* ours is for sockets */
		if (mkdirs(dir, 0750) < 0)
			e = errno;
		(void)umask(mask);
	}
	free(dir);
	if (e || lstat(path, &st) < 0)
		return e;
	if (!S_ISSOCK(st.st_mode))
		return EEXIST;
	if (socketowner(path))
		return EADDRINUSE;
	return unlink(path) < 0 ? errno : 0;
}

/* Look at the host's end and say, once, when it cannot be had. */
static bool
fwdhost(struct fwd *f)
{
	int e = f->reverse ? 0 : f->host.port == UNIXPORT ? hostpath(f->host.host) : bindable(f);
	char rule[48] = "automatic forwarding";

	if (!e)
		return true;
	f->st = e == EADDRINUSE || e == EADDRNOTAVAIL ? FTAKEN : FDENIED;
	if (f->st == FTAKEN)
		timerset(&fw.retry, takenwait);
	if (f->told)
		return false;
	f->told = true;
	if (e == EACCES && f->host.port != UNIXPORT)
		info("Not forwarding %s %s: this user may not listen on %s", protoname[f->udp][1], endtext(&f->guest), endtext(&f->host));
	else {
		if (f->rule < fw.c->forwards.n)
			snprintf(rule, sizeof rule, "portForwards[%zu]", f->rule);
		warn("Not forwarding %s %s: %s on the host (%s): %s%s", protoname[f->udp][1], endtext(&f->guest), endtext(&f->host),
		    rule, errtext(e), f->st == FTAKEN ? "; taken over when it is free" : "");
	}
	return false;
}

/* Ask for the next step from what is there to what is wanted, if there is one
 * and the carrier is there.  Frees a forward that is neither. */
static void
fwdsync(struct fwd *f)
{
	bool want = f->refs != 0, doopen = f->st == FSHUT;

	if (f->st == FOPENING || f->st == FCLOSING)
		return;
	if (!want && f->st != FOPEN) {
		fwdfree(f);
		return;
	}
	if (f->st == FTAKEN || f->st == FDENIED ||
	    (f->st == FOPEN && (fw.held || (want && endsame(&f->guest, &f->to)))))
		return;
	if (f->qemu ? !fw.qmp : !fw.greeted || (f->reverse && !fw.guestready))
		return;
	if (doopen) {
		if (!fwdhost(f))
			return;
		f->to = f->guest;
		if (fw.noted > journalcap)
			fwdnoteall();
		fwdnote('+', f);
	}
	f->st = doopen ? FOPENING : FCLOSING;
	if (!f->qemu)
		muxask(f, doopen);
	else if (hostfwdask(f, doopen) < 0) {
		f->st = doopen ? FSHUT : FOPEN;
		timerset(&fw.retry, takenwait);
	}
}

static void
retrylate(struct timer *t)
{
	struct fwd *f;

	(void)t;
	for (f = fw.all; f; f = f->next)
		if (f->st == FTAKEN)
			f->st = FSHUT;
	syncall();
}

/* The master or its socket is gone, and with it all that it carried. */
static void
muxclose(void)
{
	struct fwd *f;

	watchclose(&fw.mux);
	fw.greeted = fw.guestready = false;
	buffree(&fw.in);
	buffree(&fw.out);
	for (f = fw.all; f; f = f->next)
		if (!f->qemu && (f->st == FOPENING || f->st == FOPEN || f->st == FCLOSING)) {
			f->st = FSHUT;
			rmsocket(f);
		}
	syncall();
	fwdnoteall();
}

/* A packet of the master. */
static void
muxpacket(const unsigned char *s, size_t n)
{
	uint32_t what = getbe32(s);
	struct fwd *f;

	if (what == MUXHELLO) {
		fw.greeted = true;
		syncall();
		return;
	}
	for (f = n < 8 ? NULL : fw.all; f && f->rid != getbe32(s + 4); f = f->next)
		;
	if (!f || !(what & 1u << 31))
		return;
	what &= ~(1u << 31);
	fwdanswer(f, what == MUXFAILURE || what == MUXDENIED ? "the ssh master refuses it" : NULL);
}

static void
muxready(struct watch *w, short revents)
{
	char chunk[4096];
	const unsigned char *p;
	ssize_t n = recv(w->fd, chunk, sizeof chunk, MSG_DONTWAIT);
	size_t at = 0, len;

	(void)revents;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		muxclose();
		return;
	}
	if (n > 0)
		bufadd(&fw.in, chunk, (size_t)n);
	while (fw.in.len >= at + 8) {
		p = (const unsigned char *)fw.in.s + at;
		if ((len = getbe32(p)) < 4 || len > 65536) {
			muxclose();
			return;
		}
		if (fw.in.len < at + 4 + len)
			break;
		muxpacket(p + 4, len);
		if (fw.mux.fd < 0)
			return;
		at += 4 + len;
	}
	if (at)
		memmove(fw.in.s, fw.in.s + at, fw.in.len -= at);
	muxflush();
}

/* The master listens on path.  fresh: it is new and carries nothing. */
static void
muxconnect(const char *path, bool fresh)
{
	struct buf b = { 0 };
	int fd;

	if (fresh)
		muxclose();
	if ((fd = connectunix(path, SOCK_NONBLOCK)) < 0) {
		warn("connect %s:", path);
		return;
	}
	watchadd(&fw.mux, fd, POLLIN, muxready);
	put32be(&b, MUXHELLO);
	put32be(&b, 4);                   /* version of the protocol */
	muxsend(&b);
}

/* ---- what is wanted ---- */

/* Where ssh in the guest connects to for a listener.  Both loopbacks for ::,
 * which may or may not take IPv4. */
static void
guestend(const struct port *p, struct end *e)
{
	e->port = p->num;
	if (unspecified(p))
		snprintf(e->host, sizeof e->host, "%s", p->v6 ? "localhost" : "127.0.0.1");
	else
		portaddr(p, e->host);
}

/* Which UDP the agent looks for: none, or now and then while some is forwarded
 * because the end of a UDP socket is no event. */
static void
udpmode(void)
{
	const char *mode = fw.quiet[1] ? "off" : "bind";
	const struct fwd *f;

	for (f = fw.all; f; f = f->next)
		if (f->udp && f->refs)
			mode = "poll";
	if (mode != fw.udpmode)
		gatell("udp %s\n", mode);
	fw.udpmode = mode;
}

static bool
staticport(const struct port *p)
{
	const struct forward *f = fw.c->forwards.v, *end = f + fw.c->forwards.n;

	for (; f < end; f++)
		if (f->isstatic > 0 && p->udp == (strcmp(f->proto, "udp") == 0) && !(f->guestsocket && *f->guestsocket) &&
		    p->num >= f->guestports.from && p->num <= f->guestports.to)
			return true;
	return false;
}

/* Can QEMU's network carry it?  It reaches the guest by one address. */
static bool
qemureaches(const struct port *p, const struct end *hostend)
{
	char addr[INET6_ADDRSTRLEN];

	portaddr(p, addr);
	return hostend->port != UNIXPORT && (unspecified(p) || strcmp(addr, slirpaddress) == 0);
}

static void
listenernew(const struct port *p)
{
	struct end hostend, guest;
	struct listener *l;
	int rule;

	if (fw.nl % 64 == 0)
		fw.l = xrealloc(fw.l, fw.nl + 64, sizeof *fw.l);
	l = &fw.l[fw.nl++];
	*l = (struct listener){ .port = *p, .seen = true };
	if (staticport(p))
		return;
	if ((rule = matchport(fw.c, *fw.sshport, p, &hostend)) < 0 || (p->udp && !qemureaches(p, &hostend))) {
		if (!fw.quiet[p->udp])
			fwdsay("not-forwarding", p, NULL);
		return;
	}
	fwdsay("forwarding", p, &hostend);
	guestend(p, &guest);
	l->to = fwdget(p->udp, false, &hostend, &guest);
	if (!l->to->refs++)
		l->to->guest = guest;
	l->to->rule = (size_t)rule;
	fwdsync(l->to);
}

static void
listenergone(struct listener *l)
{
	struct listener gone = *l;
	struct fwd *f = gone.to;
	struct end other = { 0 };
	size_t i;

	*l = fw.l[--fw.nl];
	if (!f)
		return;
	fwdsay("stopping", &gone.port, &f->host);
	f->refs--;
	/* another address of the guest may lead to the same place */
	for (i = 0; i < fw.nl; i++)
		if (fw.l[i].to == f) {
			guestend(&fw.l[i].port, &other);
			if (endsame(&other, &f->guest))
				break;
		}
	if (other.port && !f->fixed)
		f->guest = other;
	fwdsync(f);
}

/* A line of the guest agent. */
static void
forwardsaid(const struct said *o)
{
	size_t i;

	switch (o->what) {
	case SAIDHELLO:
		fw.udpmode = NULL;
		break;
	case SAIDBEGIN:
		for (i = 0; i < fw.nl; i++)
			fw.l[i].seen = false;
		return;
	case SAIDEND:
		for (i = fw.nl; i-- > 0; )
			if (!fw.l[i].seen)
				listenergone(&fw.l[i]);
		if (fw.held) {
			fw.held = false;
			syncall();
		}
		break;
	case SAIDNEW:
	case SAIDGONE:
		for (i = 0; i < fw.nl && memcmp(&fw.l[i].port, &o->port, sizeof o->port) != 0; i++)
			;
		if (i < fw.nl && o->what == SAIDGONE)
			listenergone(&fw.l[i]);
		else if (i < fw.nl)
			fw.l[i].seen = true;
		else if (o->what == SAIDNEW && fw.nl < PORTMAX)
			listenernew(&o->port);
		break;
	case SAIDTIME:
		if (o->set)
			info("Time sync: guest clock adjusted (was %lldms off)", o->ms);
		return;
	}
	udpmode();
}

/* The guest boots again: nothing listens there. */
static void
forwardreset(void)
{
	while (fw.nl)
		listenergone(&fw.l[fw.nl - 1]);
}

/* A forward that is there whoever listens. */
static struct fwd *
fixedadd(bool udp, bool reverse, size_t rule, const struct end *hostend, const struct end *guest)
{
	struct fwd *f = fwdget(udp, reverse, hostend, guest);

	f->guest = *guest;
	f->rule = rule;
	f->refs += !f->fixed;
	f->fixed = true;
	return f;
}

static void
fixedsocket(size_t i, const struct forward *f)
{
	struct end h, g;

	endset(&g, f->guestsocket, UNIXPORT);
	if (f->hostsocket && *f->hostsocket)
		endset(&h, f->hostsocket, UNIXPORT);
	else
		endset(&h, f->hostip, f->hostports.from);
	if (strcspn(h.host, "\t\n") != strlen(f->hostsocket && *f->hostsocket ? f->hostsocket : f->hostip) ||
	    strcspn(g.host, "\t\n") != strlen(f->guestsocket)) {
		warn("portForwards[%zu]: %s: not a path that a socket can have", i, bq(f->guestsocket));
		return;
	}
	if (f->reverse > 0)
		info("Forwarding %s (host) to %s (guest)", bq(endtext(&h)), bq(endtext(&g)));
	else
		info("Forwarding %s (guest) to %s (host)", bq(endtext(&g)), bq(endtext(&h)));
	(void)fixedadd(false, f->reverse > 0, i, &h, &g);
}

static void
fixedports(size_t i, const struct forward *f)
{
	struct port p = { .udp = strcmp(f->proto, "udp") == 0 };
	struct end h, g;
	long long n;

	if (parseaddr(f->guestip, &p) < 0)
		return;
	if (f->guestports.to - f->guestports.from >= PORTMAX) {
		warn("portForwards[%zu]: `static: true` needs a `guestPort` or a range of no more than %d", i, PORTMAX);
		return;
	}
	for (n = f->guestports.from; n <= f->guestports.to; n++) {
		p.num = (uint16_t)n;
		/* the whole list counts: an earlier rule may ignore it */
		if (matchport(fw.c, *fw.sshport, &p, &h) < 0)
			continue;
		guestend(&p, &g);
		info("Setting up static %s forwarding from %s to %s", protoname[p.udp][1], porttext(&p), endtext(&h));
		fixedadd(p.udp, false, i, &h, &g)->qemu |= statichostfwd && qemureaches(&p, &h);
	}
}

/* What of TCP and UDP can be forwarded at all?  Leading rules that ignore every
 * port switch it off, and nobody wants to hear of each port then. */
static void
findquiet(void)
{
	static const char *const off[] = { NULL, "TCP port forwarding is disabled (except for SSH)",
	    "UDP port forwarding is disabled", "TCP (except for SSH) and UDP port forwarding is disabled" };
	const struct forward *f = fw.c->forwards.v, *end = f + fw.c->forwards.n;
	int i;

	for (; f < end && f->ignore > 0 && f->guestports.from <= 1 && f->guestports.to == 65535; f++)
		for (i = 0; i < 2; i++)
			fw.quiet[i] |= strcmp(f->proto, "any") == 0 || strcmp(f->proto, protoname[i][0]) == 0;
	if (!fw.c->autoforward && !fw.c->forwards.n)
		fw.quiet[0] = fw.quiet[1] = true;
	if (fw.c->agent && off[fw.quiet[0] + 2 * fw.quiet[1]])
		info("%s", off[fw.quiet[0] + 2 * fw.quiet[1]]);
}

/* Begin.  adopted: the VM and perhaps its master have forwards already.  event
 * gets the JSON object of each `portForward`. */
static void
forwardstart(const struct conf *c, const long long *sshport, bool adopted, void (*event)(const char *))
{
	const struct forward *f = c->forwards.v;
	size_t i;

	fw.c = c;
	fw.sshport = sshport;
	fw.event = event;
	fw.retry.due = retrylate;
	fw.held = adopted && c->agent;
	fw.path = keep("%s/ha.forwards", c->dir);
	fw.newpath = keep("%s.tmp", fw.path);
	if (adopted)
		readjournal(fw.path);
	fwdnoteall();
	findquiet();
	for (i = 0; i < c->forwards.n; i++)
		if (f[i].hostsocket && strlen(f[i].hostsocket) >= UNIXPATHMAX)
			warn("portForwards[%zu]: the path of `hostSocket` is longer than a socket's may be (%d): %s", i, UNIXPATHMAX - 1, f[i].hostsocket);
		else if (f[i].guestsocket && *f[i].guestsocket)
			fixedsocket(i, &f[i]);
		else if (f[i].isstatic > 0 && f[i].ignore <= 0)
			fixedports(i, &f[i]);
	if (!fw.held)
		syncall();
}

/* QEMU's monitor is there, or (NULL) not. */
static void
forwardqmp(struct qmp *q)
{
	fw.qmp = q;
	syncall();
}

/* The script of forwardscript() has run in the guest. */
static void
forwardready(void)
{
	fw.guestready = true;
	syncall();
}

/* Remove old sockets in the guest that are to be made there; false: none. */
static bool
forwardscript(struct buf *b)
{
	const struct fwd *f;
	bool any = false;

	for (f = fw.all; f; f = f->next)
		if (f->reverse && f->st != FOPEN) {
			bufputs(b, "rm -f -- ");
			bufquote(b, f->guest.host);
			bufputc(b, '\n');
			any = true;
		}
	return any;
}

/* ---- 27. Host agent ----------------------------------------------------- */

/* One process per running instance, one poll loop.  Everything it learns comes
 * on a descriptor: console lines and the birth of ssh.sock by inotify, QEMU's
 * events by QMP, deaths by pidfd, requests on ha.sock, signals by a pipe.
 *
 * The life of a start: QEMU is launched (BOOT); the console says that sshd
 * listens, so the ssh master is started (LOGIN); its control socket appears,
 * so ssh works (WAIT); boot.sh says on the console, or through ssh when the
 * console is silent, that it is done; probes are run until they succeed, and
 * files are copied from the guest (CHECK); then it is UP.  A connect through hostfwd before
 * sshd listens is accepted by QEMU and hangs, so nothing probes.
 *
 * The end: SIGINT or SIGTERM presses the power button (POWER), then QMP quit
 * (QUIT), then SIGKILL (KILL), each after its deadline; QEMU's exit leads to
 * CLEAN, where the ssh master is waited for, and to the end.
 *
 * When this process is killed, QEMU and the master run on.  The next agent finds
 * QEMU by its lock, reads serial.log from the start, connects to ha.qmp, and is
 * where the old one was. */

enum astate { ABOOT, ALOGIN, AWAIT, ACHECK, AUP, APOWER, AQUIT, AKILL, ACLEAN, NASTATE };
enum aevent { EWORD, EMASTER, ELOST, EDONE, ERESET, ESTOP, EGONE, ELATE, EBROKEN, NAEVENT };
static const char *const astatename[] = { "booting", "login", "waiting", "checking", "up", "power button", "quit", "kill", "clean" };
_Static_assert(LEN(astatename) == NASTATE, "name every state");

enum kid { KQEMU, KMASTER, KWAITER, KSIDE, KTPM, KSETUP, NKID };
#define NCLIENT 8
static struct {
	const struct conf *c;
	const char *dir, *sshconfig, *sshsock, *hostname;
	enum astate st;
	struct timer late;              /* of the state */
	struct proc off;                /* the guest is asked to power off, beside the button */
	bool offasked;
	struct proc names;              /* tells the guest who else is on its networks */
	struct timer namesdue;
	struct timer relaunch;          /* of QEMU, that refused to start */
	struct timer space;             /* while the VM is paused for want of space */
	struct timer healthdue;         /* the guest agent and the mounts should be there */
	struct buf lost;                /* which of them are not: JSON array members, for the status */
	bool full;
	long long retry;                /* pause before the next ssh master, ms */
	long long port;
	long long t0;                   /* QEMU's launch */
	const char *log;                /* ha.stderr.log */
	off_t logat;                    /* where in it QEMU's words begin */
	long long rebootat;             /* the last one */
	int reboots, starts, words;
	bool word;                      /* the console said that sshd listens */
	bool done;                      /* boot.sh has finished */
	long long powerend;             /* when pressing the power button has been enough */
	bool running;                   /* said so */
	bool adopted, sandbox, greeted, asked, mastertried;
	bool mastersup;                 /* our control socket is there */
	const char *whygone;            /* of a stop the guest asked for */
	struct qmp qmp;
	struct proc kids[NKID];
	int inotify, wdserial, wddir, wdlog;
	int serial;                     /* serial.log, read at its offset */
	struct buf line;                /* console line so far */
	size_t stage;                   /* how far the console got, index in consolewords[] */
	bool stuck;                     /* reported */
	bool failed;                    /* a provision script has */
	struct buf errors;              /* JSON array members of the status */
	int sig[2];
	struct watch wsig, wqmp, winotify, wlisten;
	struct client { struct watch w; struct timer late; size_t n; char req[1024]; } client[NCLIENT];
} ha;

static void haevent(enum aevent ev);

/* What is wrong, as members of the status, each with a comma behind. */
static void
puterrors(struct buf *b)
{
	if (!ha.errors.len && !ha.lost.len)
		return;
	if (ha.running)
		bufputs(b, "\"degraded\":true,");
	bufprintf(b, "\"errors\":[%s%s%s],", ha.errors.len ? ha.errors.s : "", ha.errors.len && ha.lost.len ? "," : "",
	    ha.lost.len ? ha.lost.s : "");
}

/* One line of ha.stdout.log: {"time":...,"status":{...}}.  forward: the object
 * of a portForward event, or NULL. */
static void
emitwith(bool exiting, const char *forward)
{
	struct buf b = { 0 };
	struct stat st;
	char ts[64];

	if (forward && fstat(1, &st) == 0 && st.st_size > logcap)
		return;
	timestamp(ts, sizeof ts, 9);
	bufprintf(&b, "{\"time\":\"%s\",\"status\":{", ts);
	if (exiting)
		bufputs(&b, "\"exiting\":true,");
	else if (ha.running)
		bufputs(&b, "\"running\":true,");
	puterrors(&b);
	if (!exiting)
		bufprintf(&b, "\"sshLocalPort\":%lld,", ha.port);
	if (forward)
		bufprintf(&b, "\"portForward\":%s,", forward);
	if (b.s[b.len - 1] == ',')
		b.len--;
	bufputs(&b, "}}\n");
	(void)writeall(1, b.s, b.len);          /* a full disk must not end the VM */
	buffree(&b);
}

static void
emit(bool exiting)
{
	emitwith(exiting, NULL);
}

static void
emitforward(const char *json)
{
	emitwith(false, json);
}

/* An error of the instance: logged, and part of every later status. */
static void
haerror(const char *text)
{
	error("%s", text);
	if (ha.errors.len + strlen(text) > 16384)       /* each status has them all */
		return;
	if (ha.errors.len)
		bufputc(&ha.errors, ',');
	yjsonstr(&ha.errors, text, strlen(text));
}

static void
hastate(enum astate st, long long wait)
{
	if (ha.st != st)
		debug("%s: %s -> %s", ha.c->name, astatename[ha.st], astatename[st]);
	ha.st = st;
	if (wait)
		timerset(&ha.late, wait);
	else
		timeroff(&ha.late);
}

/* ---- jobs ---- */

static void kidended(struct proc *p, int st);

/* Start an ssh of ours; frees its words. */
static void
sshjob(enum kid k, struct args *a)
{
	struct job j = { .argv = a->v, .fd = { NOFD, NOFD, ha.reboots > manyreboots ? NOFD : -1 }, .session = true };

	if (procstart(&ha.kids[k], &j, kidended) < 0)
		warn("run ssh (install openssh-client):");
	argsfree(a);
}

/* The words of such an ssh: options, separated by one blank each, and the guest. */
static void
sshargs(struct args *a, const char *options)
{
	arg(a, "ssh");
	argopt(a, "-F", "%s", ha.sshconfig);
	argwords(a, options);
	arg(a, "%s", ha.hostname);
}

static void
startmaster(void)
{
	struct args a = { 0 };
	pid_t pid;

	if (procruns(&ha.kids[KMASTER]))
		return;
	if ((pid = socketowner(ha.sshsock))) {
		if (ha.adopted && !ha.mastertried) {    /* the last agent's: it never stopped working */
			ha.mastertried = true;
			if (ismaster(pid, ha.sshconfig)) {
				ha.kids[KMASTER].ended = kidended;
				(void)procwatch(&ha.kids[KMASTER], pid, false);
				haevent(EMASTER);
				return;
			}
		}
		/* a user's ssh was quicker than we: it keeps its sessions, we take over */
		if (!procruns(&ha.kids[KSIDE])) {
			sshargs(&a, "-O stop");
			sshjob(KSIDE, &a);
		}
		return;
	}
	(void)unlink(ha.sshsock);
	/* LogLevel, or it logs each connection that a guest refuses; SendEnv, or it
	 * drops what a session sends */
	sshargs(&a, "-o ControlMaster=yes -o ControlPersist=no -o LogLevel=ERROR -o ConnectTimeout=30 -o SendEnv=COLORTERM -N");
	sshjob(KMASTER, &a);
}

/* The console is silent: one ssh command that returns when boot.sh is done.
 * GNU tail waits for the file by inotify, busybox' looks once a second. */
static void
startwaiter(void)
{
	struct args a = { 0 };

	if (procruns(&ha.kids[KWAITER]))
		return;
	sshargs(&a, "-o ControlMaster=no -n");
	/* sh -c, for the login shell may be fish or csh */
	arg(&a, "sh -c 'exec 2>/dev/null; { sh -c \"echo \\$\\$; exec tail -n +1 -F /run/lima-boot-done\" | "
	    "{ read -r pid; read -r iid; kill \"$pid\"; test -n \"$iid\"; }; }'");
	sshjob(KWAITER, &a);
}

/* A script for the guest, on the stdin of `shell`, through the master; its stdout
 * goes to out, or NOFD.  p says when it is over. */
static void
sshscript(struct proc *p, const char *shell, const struct buf *script, int out, void (*over)(struct proc *, int))
{
	struct job j = { .fd = { -1, out, NOFD }, .session = true };
	struct args a = { 0 };

	if ((j.fd[0] = memfd_create("script", MFD_CLOEXEC)) >= 0 && writeall(j.fd[0], script->s, script->len) == 0 &&
	    lseek(j.fd[0], 0, SEEK_SET) == 0) {
		sshargs(&a, "-o ControlMaster=no");
		arg(&a, "%s", shell);
		j.argv = a.v;
		if (procstart(p, &j, over) < 0)
			warn("run ssh (install openssh-client):");
		argsfree(&a);
	}
	if (j.fd[0] >= 0)
		close(j.fd[0]);
}

static void qmpevent(const struct ynode *o);

static void
qmpdrop(void)
{
	forwardqmp(NULL);
	watchdel(&ha.wqmp);
	qmpclose(&ha.qmp);
}

static void
qmpready(struct watch *w, short revents)
{
	(void)w;
	(void)revents;
	if (qmpread(&ha.qmp, qmpevent) < 0)
		qmpdrop();
}

/* Connect to the agent's monitor; -1 with errno. */
static int
qmpconnect(void)
{
	if ((ha.qmp.fd = connectunix(keep("%s/ha.qmp", ha.dir), SOCK_NONBLOCK)) < 0)
		return -1;
	watchadd(&ha.wqmp, ha.qmp.fd, POLLIN, qmpready);
	return 0;
}

/* A TPM of software for QEMU to connect to; it ends with that connection.  The
 * socket listens before swtpm is there, so QEMU need not wait for it. */
static int
starttpm(void)
{
	struct args a = { 0 };
	const char *state = keep("%s/swtpm", ha.dir), *sock = keep("%s/swtpm.sock", ha.dir);
	struct job j = { .fd = { NOFD, 2, 2 }, .dir = ha.dir, .session = true };
	int r;

	if (!ha.c->tpm || procruns(&ha.kids[KTPM]))
		return 0;
	if ((mkdir(state, 0700) < 0 && errno != EEXIST) || chmod(state, 0700) < 0) {    /* our umask is for sockets */
		error("create %s:", state);
		return -1;
	}
	(void)unlink(keep("%s/.lock", state));
	j.pass = listenunix(sock);
	argwords(&a, "swtpm socket --tpmstate dir=swtpm --ctrl type=unixio,fd=3 --tpm2 --terminate --log level=1");
	j.argv = a.v;
	if ((r = procstart(&ha.kids[KTPM], &j, kidended)) < 0)
		error("run swtpm (package swtpm):");
	close(j.pass);
	argsfree(&a);
	return r;
}

/* A file of the instance that is of use as long as the VM runs. */
static void
shortfile(const char *name, const char *text)
{
	const char *path = keep("%s/%s", ha.dir, name);
	int fd = open(path, O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC|O_NOFOLLOW, 0600);

	if (fd < 0 || writeall(fd, text, strlen(text)) < 0)
		warn("write %s:", path);
	if (fd >= 0)
		close(fd);
}

static void
vncanswer(void *arg, const struct ynode *v, const char *err)
{
	const struct ynode *h = v ? yget(v, "host") : NULL, *p = v ? yget(v, "service") : NULL;
	long long port;

	(void)arg;
	if (!h || !p || h->kind != Y_STR || p->kind != Y_STR || parsenum(p->s, 5900, 65535, &port) < 0) {
		warn("QEMU does not say where its VNC server listens: %s", v ? "unexpected answer" : err);
		return;
	}
	shortfile("vncdisplay", keep("%s:%lld", h->s, port - 5900));
	info("VNC server running at %s <vnc://%s:%lld> (password in %s)", h->s, h->s, port, bq(keep("%s/vncpassword", ha.dir)));
}

static void
vncpassed(void *arg, const struct ynode *v, const char *err)
{
	(void)arg;
	if (!v)
		warn("cannot set the VNC password: %s", err);
}

/* QEMU's VNC server lets nobody in until it has a password. */
static void
startvnc(void)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789xy";
	unsigned char r[8];
	char word[9] = "";
	size_t i;

	_Static_assert(sizeof set == 65, "six bits each");
	if (!ha.c->display || strcmp(ha.c->display, "vnc") != 0 || ha.adopted)
		return;
	if (getrandom(r, sizeof r, 0) != sizeof r) {
		warn("no random numbers for a VNC password:");
		return;
	}
	for (i = 0; i < sizeof r; i++)
		word[i] = set[r[i] & 63];
	shortfile("vncpassword", word);
	if (qmpask(&ha.qmp, "set_password", keep("{\"protocol\":\"vnc\",\"password\":\"%s\"}", word), vncpassed, NULL) < 0 ||
	    qmpask(&ha.qmp, "query-vnc", NULL, vncanswer, NULL) < 0)
		warn("cannot set the VNC password");
}

static int
startqemu(void)
{
	struct args a = { 0 };
	char *env[] = { keep("PATH=%s", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin"),
	    keep("HOME=%s", host.home ? host.home : "/"), "LC_ALL=C",
	    keep("TMPDIR=%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"), NULL, NULL, NULL, NULL, NULL, NULL };
	/* a window or the host's sound wants to know where they are */
	static const char *const seats[] = { "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "PULSE_SERVER" };
	int fd = listenunix(keep("%s/ha.qmp", ha.dir)), e;
	/* its words go to ha.stderr.log, which outlives this process */
	struct job j = { .fd = { NOFD, 2, 2 }, .pass = fd, .session = true, .env = env };
	struct stat st;
	size_t i, n = 4;
	int r;

	for (i = 0; i < LEN(seats); i++)
		if ((strcmp(ha.c->display, "none") != 0 || *ha.c->audiodevice) && getenv(seats[i]))
			env[n++] = keep("%s=%s", seats[i], getenv(seats[i]));
	if (starttpm() < 0) {
		close(fd);
		return -1;
	}
	qemuargs(&a, ha.c, ha.port, ha.sandbox);
	j.argv = a.v;
	info("Starting QEMU (hint: to watch the boot progress, see %s)", bq(keep("%s/serial*.log", ha.dir)));
	ha.t0 = now();
	ha.logat = stat(ha.log, &st) == 0 ? st.st_size : 0;
	r = procstart(&ha.kids[KQEMU], &j, kidended);
	e = errno;
	close(fd);
	if (r == 0) {
		/* the socket listened before QEMU was there: connect without a wait */
		(void)qmpconnect();
	} else if (e == ENOENT)
		error("%s: not found in PATH; install %s", a.v[0], "qemu-system (qemu-system-x86, qemu-system-arm ...)");
	else {
		errno = e;
		error("run %s:", a.v[0]);
	}
	argsfree(&a);
	return r;
}

/* ---- transitions ---- */

static void nothing(void) { }

/* sshd listens, or the console said nothing for long: log in. */
static void
login(void)
{
	if (ha.st == ABOOT)
		info("Waiting for the essential requirement 1 of 2: `ssh`");
	hastate(ALOGIN, loginwait);
	startmaster();
	if (ha.st == ALOGIN && !procruns(&ha.kids[KMASTER]) && !procruns(&ha.kids[KSIDE]))
		hastate(ALOGIN, ha.retry);      /* no ssh could be started: again */
}

/* Nothing came of it: an ssh that hangs, or a pause that is over. */
static void
loginlate(void)
{
	prockill(&ha.kids[KSIDE], SIGKILL);
	if (procruns(&ha.kids[KMASTER]))
		prockill(&ha.kids[KMASTER], SIGKILL);      /* leads to ELOST */
	else
		login();
}

/* The console's word comes while an attempt without it hangs: a new one. */
static void
loginanew(void)
{
	prockill(&ha.kids[KMASTER], SIGKILL);
	ha.retry = retryfirst;
}

/* The master went, or was refused: again, a little later each time. */
static void
relogin(void)
{
	ha.mastersup = false;
	mountssh(false, false);
	muxclose();
	if (!socketowner(ha.sshsock))
		(void)unlink(ha.sshsock);       /* or every ssh complains of it */
	if (ha.st == ABOOT || ha.st >= APOWER)
		return;
	hastate(ALOGIN, ha.retry);
	ha.retry = ha.retry * 2 < retrylast ? ha.retry * 2 : retrylast;
}

static void
announce(void)
{
	hastate(AUP, 0);
	if (ha.running)
		return;
	timerset(&ha.healthdue, healthwait);
	ha.running = true;
	emit(false);
}

/* Probes, then the files of copyToHost, one after the other. */
static struct {
	size_t at;                      /* how many are done */
	int tries;                      /* of this one that failed */
	struct proc run;
	struct watch w;                 /* what it says; fd -1: none, or too much came */
	struct buf out;
} check;

static void checknext(void);

/* The current one is over, well or not. */
static void
checked(void)
{
	check.at++;
	check.tries = 0;
	checknext();
}

static void
probeended(struct proc *p, int st)
{
	const struct probe *v = &((const struct probe *)ha.c->probes.v)[check.at];
	size_t n = ha.c->probes.n;
	bool hint = v->hint && *v->hint;

	(void)p;
	if (ha.st != ACHECK)
		return;
	if (st == 0) {
		info("The optional requirement %zu of %zu is satisfied", check.at + 1, n);
		checked();
	} else if (++check.tries < (ha.failed ? probefails : probetries)) {
		hastate(ACHECK, check.tries < 5 ? probefirst << check.tries : probelast);
	} else {
		haerror(keep("failed to satisfy the optional requirement %zu of %zu %s: %s%sits script %s", check.at + 1, n,
		    bq(v->description), hint ? v->hint : "", hint ? ": " : "", ended(st)));
		checked();
	}
}

/* The program of the #! line reads the script, with param in the environment. */
static void
startprobe(const struct probe *v)
{
	const struct pairs *p = &ha.c->param;
	struct buf shell = { 0 }, script = { 0 };
	size_t i;

	if (!check.tries)
		info("Waiting for the optional requirement %zu of %zu: %s", check.at + 1, ha.c->probes.n, bq(v->description));
	bufputs(&shell, "env");
	for (i = 0; i < p->n; i++) {
		bufputc(&shell, ' ');
		bufquote(&shell, keep("PARAM_%s=%s", p->v[i].key, p->v[i].val));
	}
	bufprintf(&shell, " %.*s", (int)strcspn(v->script + 2, "\r\n"), v->script + 2);
	bufputs(&script, v->script);
	sshscript(&check.run, shell.s, &script, NOFD, probeended);
	buffree(&shell);
	buffree(&script);
}

static void
copyread(struct watch *w, short revents)
{
	char chunk[65536];
	ssize_t n;

	(void)revents;
	while ((n = read(w->fd, chunk, sizeof chunk)) > 0 && check.out.len <= (size_t)copymax)
		bufadd(&check.out, chunk, (size_t)n);
	if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		watchclose(w);
}

/* Not below the agent's umask, which is for sockets. */
static int
copydir(const char *path)
{
	mode_t old = umask(077);
	int r = mkdirs(parentdir(path), 0700);

	umask(old);
	return r;
}

static void
copyended(struct proc *p, int st)
{
	const struct cthost *v = &((const struct cthost *)ha.c->copies.v)[check.at - ha.c->probes.n];
	const char *why = NULL;

	(void)p;
	if (check.w.fd >= 0)
		copyread(&check.w, 0);
	watchclose(&check.w);           /* a grandchild of ssh may hold it */
	if (ha.st == ACHECK) {
		if (check.out.len > (size_t)copymax)
			why = keep("it is larger than %s", printsize(copymax));
		else if (st)
			why = "the guest cannot read it";
		else if (copydir(v->host) < 0 || writefile(v->host, check.out.s ? check.out.s : "", check.out.len, 0600) < 0)
			why = keep("it cannot be written: %s", errtext(errno));
		if (why)
			haerror(keep("failed to copy %s of the guest to %s: %s", bq(v->guest), bq(v->host), why));
	}
	buffree(&check.out);
	if (ha.st == ACHECK)
		checked();
}

static void
startcopy(const struct cthost *v)
{
	struct buf b = { 0 }, q = { 0 };
	int p[2];

	info("Copying config from %s to %s", v->guest, v->host);
	if (pipe2(p, O_CLOEXEC|O_NONBLOCK) < 0) {       /* it is tried again */
		warn("pipe:");
		return;
	}
	bufquote(&q, v->guest);
	bufprintf(&b, "cat %s 2>/dev/null || sudo -n cat %s\n", q.s, q.s);
	(void)fcntl(p[1], F_SETFL, 0);  /* ssh's end blocks */
	watchadd(&check.w, p[0], POLLIN, copyread);
	sshscript(&check.run, "sh", &b, p[1], copyended);
	close(p[1]);
	if (!procruns(&check.run))
		watchclose(&check.w);
	buffree(&b);
	buffree(&q);
}

static void
checknext(void)
{
	size_t n = ha.c->probes.n;

	if (procruns(&check.run))
		return;
	hastate(ACHECK, 0);
	if (check.at < n)
		startprobe(&((const struct probe *)ha.c->probes.v)[check.at]);
	else if (check.at < n + ha.c->copies.n)
		startcopy(&((const struct cthost *)ha.c->copies.v)[check.at - n]);
	else
		announce();
	if (ha.st == ACHECK && !procruns(&check.run))
		hastate(ACHECK, probelast);     /* no ssh could be started: again */
}

/* boot.sh is done and ssh works. */
static void
checks(void)
{
	if (ha.running) {
		announce();
		return;
	}
	info("The final requirement 1 of 1 is satisfied");
	if (mountpending())
		hastate(ACHECK, mountwait);     /* mountchange() may be quicker */
	else
		checknext();
}

/* Remove what copyToHost left on the host for a run. */
static void
copydrop(const struct conf *c)
{
	const struct cthost *v = c->copies.v;
	size_t i;

	for (i = 0; i < c->copies.n; i++)
		if (v[i].deleteonstop > 0 && access(v[i].host, F_OK) == 0) {
			info("Deleting %s", v[i].host);
			(void)unlink(v[i].host);
		}
}

/* What a new connection needs in the guest: no old sockets where ours go, and
 * the way to the user's ssh agent at the place where limactl has it. */
static void
sshsetup(void)
{
	struct buf b = { 0 };
	bool any = forwardscript(&b);

	if (ha.c->forwardagent > 0 && ha.kids[KMASTER].child) {
		bufputs(&b, "test -z \"$SSH_AUTH_SOCK\" || ln -sf \"$SSH_AUTH_SOCK\" /run/host-services/ssh-auth.sock\n");
		any = true;
	}
	if (any && !procruns(&ha.kids[KSETUP]))
		sshscript(&ha.kids[KSETUP], "sh", &b, NOFD, kidended);
	buffree(&b);
}

static void
sshup(void)
{
	ha.mastersup = true;
	ha.retry = retryfirst;
	mountssh(true, false);
	muxconnect(ha.sshsock, ha.kids[KMASTER].child);
	sshsetup();
	if (!ha.running) {
		info("The essential requirement 1 of 2 is satisfied");
		info("The essential requirement 2 of 2 is satisfied");
	}
	if (ha.done) {
		checks();
		return;
	}
	info("Waiting for the final requirement 1 of 1: `boot scripts must have finished`");
	hastate(AWAIT, ha.adopted ? 1 : donewait);
}

static void
bootdone(void)
{
	ha.done = true;
	if (ha.st == AWAIT)
		checks();
}

/* QEMU was reset: the guest boots again and nothing of it can be reached. */
static void
rebooted(void)
{
	/* a guest in a loop must not fill the disk */
	if (now() - ha.rebootat > rebootcalm) {
		ha.reboots = 0;
		msg.min = DEBUG;
	}
	ha.rebootat = now();
	if (ha.reboots++ < manyreboots)
		info("The guest reboots");
	else if (ha.reboots == manyreboots + 1) {
		warn("The guest reboots again and again: only warnings are logged until it has run for an hour");
		msg.min = WARN;
	}
	if (!ha.running)
		buffree(&ha.errors);
	ha.mastersup = false;
	mountssh(false, true);
	muxclose();
	forwardreset();
	ha.word = ha.done = ha.stuck = false;
	ha.stage = 0;
	ha.retry = retryfirst;
	prockill(&ha.kids[KMASTER], SIGKILL);
	prockill(&ha.kids[KWAITER], SIGKILL);
	prockill(&check.run, SIGKILL);
	check.at = 0;
	check.tries = 0;
	hastate(ABOOT, silentwait);
}

static void
askquit(void)
{
	hastate(AQUIT, quitwait);
	/* without a monitor SIGTERM does the same: QEMU flushes its disks and exits */
	if (qmpsend(&ha.qmp, "quit") < 0)
		prockill(&ha.kids[KQEMU], SIGTERM);
}

static void
quit(void)
{
	warn("The guest did not power off; asking QEMU to quit");
	askquit();
}

/* The command of askoff() is over; what counts is QEMU's end. */
static void
offtold(struct proc *p, int st)
{
	(void)p;
	(void)st;
}

/* Through ssh too: a guest may have no driver for the button. */
static void
askoff(void)
{
	struct buf b = { 0 };

	ha.offasked = true;
	info("The power button seems to have no effect; asking the guest through ssh");
	bufputs(&b, "systemctl poweroff 2>/dev/null || poweroff\n");
	sshscript(&ha.off, "sudo -n sh", &b, NOFD, offtold);
	buffree(&b);
}

/* Press, and again a little later: while the guest boots nobody there listens. */
static void
press(void)
{
	if (ha.mastersup && !ha.offasked && now() >= ha.powerend - powerwait + powerask)
		askoff();
	/* a guest that is off needs no button, and QEMU closes its monitor before it ends */
	if (now() >= ha.powerend || (!ha.whygone && qmpsend(&ha.qmp, "system_powerdown") < 0))
		quit();
	else
		hastate(APOWER, pressagain);
}

static void
power(void)
{
	info("Shutting down QEMU with the power button");
	mountssh(false, false);
	ha.powerend = now() + powerwait;
	if (ha.full)                    /* a paused guest sees no button */
		quit();
	else
		press();
}

static void
hardkill(void)
{
	warn("QEMU did not exit, forcibly killing QEMU");
	prockill(&ha.kids[KQEMU], SIGKILL);
	hastate(AKILL, quitwait);
}

/* QEMU has exited: the master follows, or is made to. */
static void
gone(void)
{
	if (ha.st < APOWER)
		info("Driver stopped: %s", ha.whygone ? ha.whygone : "QEMU exited by itself");
	mountssh(false, false);
	mountover();
	prockillall(SIGTERM);
	hastate(ACLEAN, 500);
}

/* The guest cannot boot: say so and end it while it has not been of use yet. */
static void
broken(void)
{
	/* an adopted console tells of the past */
	if (!ha.running && !ha.adopted)
		askquit();
}

static void
askdone(void)
{
	startwaiter();
	hastate(AWAIT, procruns(&ha.kids[KWAITER]) ? 0 : donewait);     /* no ssh could be started: again */
}

static void
cleanend(void)
{
	prockillall(SIGKILL);
}

static void (*const act[NASTATE][NAEVENT])(void) = {
	/*            word     master   lost     done      reset     stop      gone      time      broken */
	[ABOOT]  = { login,   sshup,   nothing, bootdone, rebooted, power,    gone,     login,    broken  },
	[ALOGIN] = { loginanew, sshup,   relogin, bootdone, rebooted, power,    gone,     loginlate, broken },
	[AWAIT]  = { nothing, nothing, relogin, bootdone, rebooted, power,    gone,     askdone,  broken  },
	[ACHECK] = { nothing, nothing, relogin, nothing,  rebooted, power,    gone,     checknext, broken },
	[AUP]    = { nothing, nothing, relogin, bootdone, rebooted, power,    gone,     nothing,  nothing },
	[APOWER] = { nothing, nothing, nothing, nothing,  nothing,  quit,     gone,     press,    nothing },
	[AQUIT]  = { nothing, nothing, nothing, nothing,  nothing,  hardkill, gone,     hardkill, nothing },
	[AKILL]  = { nothing, nothing, nothing, nothing,  nothing,  nothing,  gone,     hardkill, nothing },
	[ACLEAN] = { nothing, nothing, nothing, nothing,  nothing,  nothing,  nothing,  cleanend, nothing },
};

static void
haevent(enum aevent ev)
{
	act[ha.st][ev]();
}

/* ---- what comes in ---- */

/* The last lines of the console, for whoever reads the log. */
static void
consoletail(void)
{
	static char text[16385];
	off_t end = lseek(ha.serial, 0, SEEK_CUR), from = end > 16384 ? end - 16384 : 0;
	ssize_t n = pread(ha.serial, text, (size_t)(end - from), from);

	text[n > 0 ? n : 0] = '\0';
	saytail(text, consolelines, error, "console: ");
}

/* An emulated kernel that panicked as it booted is reset, once: QEMU before 8.1 may
 * run code as it was before another CPU changed it, and kernels change theirs. */
static bool
resetonce(const char *s)
{
	const char *why;

	if (ha.st != ABOOT || ha.starts || !strstr(s, "Fatal exception") || strcmp(accelerator(ha.c->arch, &why), "tcg") != 0 ||
	    qmpsend(&ha.qmp, "system_reset") < 0)
		return false;
	ha.starts++;
	warn("The kernel of the guest, which is emulated, panicked as it booted; resetting it once");
	haevent(ERESET);
	return true;
}

/* A line of the console, or the end of one that has no newline yet. */
static void
consoleline(const char *s, bool whole)
{
	struct buf b = { 0 }, text = { 0 };
	const struct word *w;
	size_t i;

	for (i = 0; i < LEN(consolewords) && !strstr(s, consolewords[i].text); i++)
		;
	if (i == LEN(consolewords))
		return;
	w = &consolewords[i];
	if (whole && ha.adopted && strstr(s, "Linux version "))
		ha.word = ha.done = ha.stuck = false;   /* a later boot */
	if (ha.adopted && !ha.running && w->means >= WPANIC)
		return;
	if (!whole && w->means != WSTUCK)
		return;
	switch (w->means) {
	case WSSH:
		if (!ha.word) {         /* ours, or the init system's: the first counts */
			ha.word = true;
			haevent(EWORD);
		}
		break;
	case WDONE:
		if ((s = strrchr(s, ' ')) && strcmp(s, " 0") != 0 && !ha.done && ha.reboots < manyreboots)
			warn("The boot script of the guest reports a failure (hint: see `%s/serial.log`)", ha.dir);
		haevent(EDONE);
		break;
	case WSTAGE:
		if (i <= ha.stage || ha.running || ha.reboots > manyreboots)
			break;
		/* stages come in the order of the table */
		ha.stage = i;
		info("Boot stage: %s (%lld.%lld s)", w->say, (now() - ha.t0) / 1000, (now() - ha.t0) / 100 % 10);
		break;
	case WERROR:
	case WFAIL:
	case WNEWS:
		if (ha.words++ > manywords)     /* a hostile guest must not fill the log */
			break;
		s = strstr(s, w->text) + strlen(w->text);
		bufsafe(&b, s, strlen(s));
		bufprintf(&text, "%s: %s", w->say, b.s ? b.s : "");
		if (w->means == WERROR)
			haerror(text.s);
		else if (w->means == WFAIL) {
			ha.failed = true;
			warn("%s", text.s);
		} else
			info("%s %s", w->say, b.s ? b.s : "");
		break;
	case WPANIC:
		if (strstr(s, "---[ end ") || resetonce(s))
			break;
		/* fall through */
	case WSTUCK:
		if (ha.stuck)
			break;
		ha.stuck = true;
		bufsafe(&b, s, strlen(s));
		bufprintf(&text, "%s: %s", w->say, b.s ? b.s : "");
		if (ha.reboots < manyreboots) {
			haerror(text.s);
			consoletail();
		}
		haevent(EBROKEN);
		break;
	}
	buffree(&text);
	buffree(&b);
}

/* Follow serial.log from where we are. */
static void
readconsole(void)
{
	char chunk[4096];
	ssize_t n, i;
	off_t at;

	while ((n = read(ha.serial, chunk, sizeof chunk)) > 0) {
		for (i = 0; i < n; i++)
			if (chunk[i] == '\n' || chunk[i] == '\r' || ha.line.len > 4000) {
				if (ha.line.len)
					consoleline(ha.line.s, true);
				ha.line.len = 0;
			} else if (chunk[i])
				bufputc(&ha.line, chunk[i]);
		if (ha.line.len)
			consoleline(ha.line.s, false);
	}
	/* QEMU appends, so cutting the file restarts it at nothing */
	if ((at = lseek(ha.serial, 0, SEEK_CUR)) > serialcap && ftruncate(ha.serial, 0) == 0)
		(void)lseek(ha.serial, 0, SEEK_SET);
}

/* QEMU stopped the VM because the host's disk is full: let it go on once there
 * is room, for nobody would guess why it hangs. */
static void
spacelate(struct timer *t)
{
	struct statvfs v;

	if (statvfs(ha.dir, &v) == 0 && (long long)v.f_bavail * (long long)v.f_frsize >= resumespace &&
	    qmpsend(&ha.qmp, "cont") == 0) {
		info("There is space again: the VM goes on");
		ha.full = false;
	} else
		timerset(t, spacewait);
}

/* The data of BLOCK_IO_ERROR, QEMU QMP reference: action stop is what writes do
 * that meet ENOSPC. */
static void
ioerror(const struct ynode *data)
{
	const struct ynode *action = yget(data, "action"), *full = yget(data, "nospace"), *why = yget(data, "reason");

	if (!action || !action->s || strcmp(action->s, "stop") != 0) {
		debug("QEMU: I/O error on a disk: %s", why && why->s ? why->s : "no reason given");
		return;
	}
	if (!ha.full && full && full->i) {
		ha.full = true;
		error("The VM is paused: no space is left on the file system of %s; it goes on when there is", ha.dir);
		timerset(&ha.space, spacewait);
	} else if (!ha.full)
		error("The VM is paused: I/O error on a disk: %s", why && why->s ? why->s : "no reason given");
}

/* One thing that is missing: logged when it is new. */
static void
lostadd(struct buf *b, const char *text)
{
	size_t at = b->len + (b->len != 0);

	if (b->len)
		bufputc(b, ',');
	yjsonstr(b, text, strlen(text));
	if (!ha.lost.len || !strstr(ha.lost.s, b->s + at))
		error("%s", text);
}

/* Are the guest agent and the mounts there?  A change is an event. */
static void
health(struct timer *t)
{
	struct buf b = { 0 }, text = { 0 };
	const char *location;
	bool there;
	size_t i;

	if (ha.st >= APOWER || !ha.running)
		return;
	if (!ha.done) {                 /* the guest boots again */
		timerset(t, healthwait);
		return;
	}
	if (ha.c->agent && agentfor(ha.c, &i) && !gaanswers())
		lostadd(&b, "guest agent does not seem to be running; port forwards will not work");
	for (i = 0; (location = mountstate(i, &there)); i++)
		if (!there) {
			text.len = 0;
			bufprintf(&text, "the mount %s is not there in the guest", location);
			lostadd(&b, text.s);
		}
	buffree(&text);
	if (b.len == ha.lost.len && (!b.len || strcmp(b.s, ha.lost.s) == 0)) {
		buffree(&b);
		return;
	}
	if (!b.len)
		info(ha.c->agent ? "Guest agent is running, and all mounts are there" : "All mounts are there");
	buffree(&ha.lost);
	ha.lost = b;
	emit(false);
}

/* Something came (look at once when it was missed) or went. */
static void
healthchange(bool came)
{
	if (!came)
		timerset(&ha.healthdue, healthwait);
	else if (ha.lost.len)
		health(&ha.healthdue);
}

/* A mount came or went by ssh. */
static void
mountchange(bool came)
{
	healthchange(came);
	if (!came && mountfinal())
		timerset(&ha.healthdue, 0);
	if (ha.st == ACHECK && !check.at && !check.tries && !mountpending())
		checknext();
}

/* A line of the guest agent. */
static void
agentsaid(const struct said *o)
{
	if (o->what == SAIDHELLO) {
		gatime();
		healthchange(true);
	}
	forwardsaid(o);
}

/* The data of VSERPORT_CHANGE: the guest opened or closed the agent's port. */
static void
agentport(const struct ynode *data)
{
	const struct ynode *id = yget(data, "id"), *open = yget(data, "open");

	if (!id || !id->s || strcmp(id->s, "agent") != 0 || !open)
		return;
	gaport(open->i);
}

static void
chardevs(void *arg, const struct ynode *v, const char *err)
{
	const struct ynode *n, *label, *open;

	(void)arg;
	(void)err;
	mountports(v);
	for (n = v ? v->first : NULL; n; n = n->next)
		if ((label = yget(n, "label")) && label->s && strcmp(label->s, "char-ga") == 0 &&
		    (open = yget(n, "frontend-open")) && open->i)
			gaport(true);
}

static void
qmpevent(const struct ynode *o)
{
	const struct ynode *ev = yget(o, "event"), *v = ypath(o, "QMP.version.qemu");
	const char *name = ev && ev->kind == Y_STR ? ev->s : "";

	if (v) {
		const struct ynode *major = yget(v, "major"), *minor = yget(v, "minor");
		if (major && minor && major->i * 100 + minor->i < 602)
			warn("QEMU %lld.%lld is too old, 6.2.0 or later is recommended", major->i, minor->i);
		(void)qmpsend(&ha.qmp, "qmp_capabilities");
		ha.greeted = true;
		if (ha.c->agent) {
			gaconnect(keep("%s/ga.sock", ha.dir), agentsaid);
			/* of an adopted VM the guest's end may be open already */
			(void)qmpask(&ha.qmp, "query-chardev", NULL, chardevs, NULL);
		}
		forwardqmp(&ha.qmp);
		startvnc();
		if (ha.st == APOWER)    /* asked to stop before QEMU listened */
			press();
		if (ha.st == AQUIT)
			(void)qmpsend(&ha.qmp, "quit");
	} else if (strcmp(name, "SHUTDOWN") == 0) {
		debug("QEMU: shutdown");
		if (ypath(o, "data.guest") && ypath(o, "data.guest")->i)
			ha.whygone = "the guest powered off";
	} else if (strcmp(name, "BLOCK_IO_ERROR") == 0) {
		ioerror(yget(o, "data"));
	} else if (strcmp(name, "RESUME") == 0) {
		gatime();
	} else if (strcmp(name, "VSERPORT_CHANGE") == 0) {
		agentport(yget(o, "data"));
		mountevent(yget(o, "data"));
		healthchange(ypath(o, "data.open") && ypath(o, "data.open")->i);
	} else if (strcmp(name, "RESET") == 0 && ypath(o, "data.guest") && ypath(o, "data.guest")->i)
		haevent(ERESET);
}

static void
readinotify(struct watch *w, short revents)
{
	_Alignas(struct inotify_event) char chunk[4096];
	const struct inotify_event *e;
	struct stat st;
	ssize_t n, at;
	bool console = false, sock = false;

	(void)w;
	(void)revents;
	while ((n = read(ha.inotify, chunk, sizeof chunk)) > 0)
		for (at = 0; at < n; at += (ssize_t)(sizeof *e + e->len)) {
			e = (const struct inotify_event *)(const void *)(chunk + at);
			if (e->mask & IN_Q_OVERFLOW) {  /* anything may have happened */
				console = sock = true;
				timerset(&ha.namesdue, retryfirst);
			}
			console |= e->wd == ha.wdserial;
			/* QEMU, ssh and others, that write there too, know no limit of their own */
			if (e->wd == ha.wdlog && stat(ha.log, &st) == 0 && st.st_size > 2 * logcap && truncate(ha.log, logcap) < 0)
				ha.wdlog = -1;
			if (e->wd != ha.wddir && e->len && strcmp(e->name, "leases") == 0)
				timerset(&ha.namesdue, retryfirst);
			sock |= e->wd == ha.wddir && e->len && strcmp(e->name, "ssh.sock") == 0;
		}
	if (console)
		readconsole();
	/* ssh links its listening socket to this name when it is logged in */
	if (sock && !ha.mastersup && procruns(&ha.kids[KMASTER]) &&
	    socketowner(ha.sshsock) == ha.kids[KMASTER].pid)
		haevent(EMASTER);
	/* somebody removed it: whoever comes would wait for a new one */
	if (sock && ha.mastersup && access(ha.sshsock, F_OK) < 0)
		prockill(&ha.kids[KMASTER], SIGTERM);
}

static void
readsignal(struct watch *w, short revents)
{
	char c;

	(void)w;
	(void)revents;
	while (read(ha.sig[0], &c, 1) == 1) {
		info("Received %s, shutting down the host agent", c == SIGINT ? "SIGINT" : "SIGTERM");
		ha.asked = true;
		haevent(ESTOP);
	}
}

static void
agentsignal(int sig)
{
	int e = errno;
	char c = (char)sig;

	if (write(ha.sig[1], &c, 1) < 0) {
		/* full: two are as good as three */
	}
	errno = e;
}

/* QEMU refused to start.  Try again when its last words name what can be done
 * without: a sandbox that this build lacks, or a port that was free a moment
 * ago and that nobody asked for by number. */
static bool
startagain(void)
{
	char text[16384] = "";
	int fd = open(ha.log, O_RDONLY|O_CLOEXEC|O_NOFOLLOW);
	bool again = false;

	/* what this one wrote, and not one before */
	if (fd >= 0 && pread(fd, text, sizeof text - 1, ha.logat) < 0)
		*text = '\0';
	if (fd >= 0)
		close(fd);
	if (ha.starts++ > 3)
		return false;
	if (ha.sandbox && strstr(text, "sandbox")) {
		warn("Trying again without QEMU's sandbox");
		ha.sandbox = false;
		again = true;
	} else if (!ha.c->sshport && strstr(text, "host forwarding") && (ha.port = freeport(0))) {
		info("Trying again with port %lld", ha.port);
		again = writesshconfig(ha.c, ha.port) == 0;
	}
	qmpdrop();
	return again;
}

/* QEMU anew, once nothing of the last try is left. */
static void
relaunch(struct timer *t)
{
	if (ha.st == ABOOT && !mountfs())
		timerset(t, 20);
	else if (ha.st != ABOOT || startqemu() < 0)    /* or it was stopped meanwhile */
		haevent(EGONE);
	else
		emit(false);
}

static void
kidended(struct proc *p, int st)
{
	switch ((enum kid)(p - ha.kids)) {
	case KQEMU:
		if (st && !(WIFSIGNALED(st) && ha.st == AKILL))
			error("QEMU %s (hint: its last words are above)", ended(st));
		if (ha.st == ABOOT && WIFEXITED(st) && WEXITSTATUS(st) && !ha.greeted && startagain()) {
			timerset(&ha.relaunch, 0);
			return;
		}
		prockill(&ha.kids[KTPM], SIGTERM);      /* where QEMU never connected */
		(void)unlink(keep("%s/swtpm.sock", ha.dir));
		(void)unlink(keep("%s/vncdisplay", ha.dir));
		(void)unlink(keep("%s/vncpassword", ha.dir));
		readconsole();
		haevent(EGONE);
		break;
	case KMASTER:
		ha.mastersup = false;
		haevent(ELOST);
		break;
	case KWAITER:
		if (WIFEXITED(st) && WEXITSTATUS(st) == 0)
			haevent(EDONE);
		else if (ha.st == AWAIT)
			hastate(AWAIT, donewait);
		break;
	case KSIDE:
		if (ha.st == ALOGIN) {
			(void)unlink(ha.sshsock);
			startmaster();
		}
		break;
	case KTPM:
		if (st && procruns(&ha.kids[KQEMU]))
			error("swtpm %s: the guest's TPM is gone (hint: its last words are above)", ended(st));
		break;
	case KSETUP:
		if (st && ha.mastersup)
			warn("The guest's sockets for port forwards and the ssh agent cannot be prepared (ssh %s)", ended(st));
		forwardready();
		break;
	case NKID:
		break;
	}
}

/* GET /v1/info, spec/cli.md 11.2.  One small request, one answer, closed. */
static void
answer(struct client *cl)
{
	struct buf b = { 0 }, body = { 0 };
	const char *code = "200 OK";

	if (startswith(cl->req, "GET /v1/info ")) {
		bufputs(&body, "{");
		puterrors(&body);
		bufprintf(&body, "\"sshLocalPort\":%lld}", ha.port);
	} else if (startswith(cl->req, "GET /v1/screenshot")) {
		code = "501 Not Implemented";
		bufputs(&body, "{\"message\":\"driver \\\"qemu\\\": driver does not support screenshots\"}");
	} else {
		code = strstr(cl->req, " /v1/info ") ? "405 Method Not Allowed" : "404 Not Found";
		bufprintf(&body, "{\"message\":\"%s\"}", code + 4);
	}
	bufprintf(&b, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
	    code, body.len, body.s);
	(void)send(cl->w.fd, b.s, b.len, MSG_NOSIGNAL|MSG_DONTWAIT);     /* far below a socket's buffer */
	buffree(&b);
	buffree(&body);
}

static void
dropclient(struct client *cl)
{
	watchclose(&cl->w);
	timeroff(&cl->late);
}

static void
clientlate(struct timer *t)
{
	dropclient(t->arg);
}

static void
readclient(struct watch *w, short revents)
{
	struct client *cl = w->arg;
	ssize_t n = recv(w->fd, cl->req + cl->n, sizeof cl->req - 1 - cl->n, MSG_DONTWAIT);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		cl->req[cl->n += (size_t)n] = '\0';
	if (n > 0 && !strstr(cl->req, "\r\n\r\n") && cl->n < sizeof cl->req - 1)
		return;
	if (n > 0)
		answer(cl);
	dropclient(cl);
}

static void
acceptclient(struct watch *w, short revents)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC|SOCK_NONBLOCK);
	struct client *cl;
	size_t i;

	(void)revents;
	if (fd < 0)
		return;
	for (i = 0; i < NCLIENT && ha.client[i].w.fd >= 0; i++)
		;
	if (i == NCLIENT)       /* all slow: the first has had its time */
		dropclient(&ha.client[i = 0]);
	cl = &ha.client[i];
	*cl = (struct client){ .w.arg = cl, .late = { .due = clientlate, .arg = cl } };
	watchadd(&cl->w, fd, POLLIN, readclient);
	timerset(&cl->late, requestwait);
}

/* ---- networks ---- */

#define NETBURST 256                    /* frames passed on before others get their turn */

struct netport {                        /* a NIC of our VM, as its host agent sees it */
	struct watch w;
	const char *dir, *self;         /* of the network; our own MAC.in */
};

static void
netsend(int fd, const char *path, const void *frame, size_t n)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	memcpy(sa.sun_path, path, strlen(path) + 1);
	/* a full or absent receiver loses the frame, as on a wire */
	(void)sendto(fd, frame, n, MSG_DONTWAIT|MSG_NOSIGNAL, (struct sockaddr *)&sa, sizeof sa);
}

/* To the one it is for, or (group bit, IEEE 802.3 3.2.3) to everyone else. */
static void
netforward(const struct netport *np, const unsigned char *f, size_t n)
{
	char path[UNIXPATHMAX + 256];
	struct dirent *d;
	DIR *dp;

	if (!(f[0] & 1)) {
		snprintf(path, sizeof path, "%s/%02x-%02x-%02x-%02x-%02x-%02x.in", np->dir, f[0], f[1], f[2], f[3], f[4], f[5]);
		if (strlen(path) < UNIXPATHMAX)
			netsend(np->w.fd, path, f, n);
		return;
	}
	if (!(dp = opendir(np->dir)))
		return;
	while ((d = readdir(dp))) {
		if (!endswith(d->d_name, ".in"))
			continue;
		if (snprintf(path, sizeof path, "%s/%s", np->dir, d->d_name) < UNIXPATHMAX && strcmp(path, np->self) != 0)
			netsend(np->w.fd, path, f, n);
	}
	closedir(dp);
}

static void
netready(struct watch *w, short revents)
{
	static unsigned char frame[65536];      /* 802.3 with QEMU's largest virtio frame */
	ssize_t n;
	int i;

	(void)revents;
	for (i = 0; i < NETBURST && (n = recv(w->fd, frame, sizeof frame, MSG_DONTWAIT)) >= 0; i++)
		if (n >= 14)                    /* destination, source, type */
			netforward(w->arg, frame, (size_t)n);
}

/* Begin to pass on the frames of a NIC.  The port lives as long as the agent. */
static void
netopen(const char *net, const char *mac)
{
	const char *path = netsock(net, mac, "out");
	struct netport *np = yalloc(&perm, sizeof *np);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0);

	memcpy(sa.sun_path, path, strlen(path) + 1);
	(void)unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		die("bind %s:", path);
	*np = (struct netport){ .dir = netdir(net), .self = netsock(net, mac, "in"), .w.arg = np };
	watchadd(&np->w, fd, POLLIN, netready);
	if (inotify_add_watch(ha.inotify, np->dir, IN_MOVED_TO) < 0)
		warn("inotify on %s:", np->dir);
}

static void
namesended(struct proc *p, int st)
{
	(void)p;
	if (st)
		debug("the names of the network were not taken by the guest");
}

/* A VM came to one of our networks: its name goes into the guest's /etc/hosts.
 * At a boot the guest has the names from cidata. */
static void
namesdue(struct timer *t)
{
	const struct network *n = ha.c->networks.v;
	struct buf b = { 0 };
	size_t i;

	if (procruns(&ha.names) || !ha.mastersup) {
		timerset(t, donewait);
		return;
	}
	bufputs(&b, "old=$(grep -v '# lima network$' /etc/hosts) && { printf '%s\\n' \"$old\"; cat <<'END'\n");
	for (i = 0; i < ha.c->networks.n; i++)
		if (n[i].lima && *n[i].lima)
			nethosts(&b, n[i].lima, " # lima network");
	/* in place, for the file is a bind mount in some images */
	bufputs(&b, "END\n} >/run/lima-hosts && cat /run/lima-hosts >/etc/hosts\n");
	sshscript(&ha.names, "sudo -n sh", &b, NOFD, namesended);
	buffree(&b);
}

static void
netstart(void)
{
	const struct network *n = ha.c->networks.v;
	size_t i;

	for (i = 0; i < ha.c->networks.n; i++)
		if (n[i].lima && *n[i].lima)
			netopen(n[i].lima, n[i].mac);
}

/* ---- the life ---- */

static void
statelate(struct timer *t)
{
	(void)t;
	haevent(ELATE);
}

static bool
agentover(void)
{
	return ha.st == ACLEAN && !loop.procs;
}

/* Hold ha.pid's lock for life.  A POSIX lock, as QEMU's: F_GETLK tells the
 * holder's pid, and it is never handed to children. */
static int
lockpid(const char *path, const char *who)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR|O_CREAT|O_CLOEXEC|O_NOFOLLOW, 0644);
	const char *text = keep("%ld\n", (long)getpid());

	if (fd < 0)
		die("create %s:", path);
	if (fcntl(fd, F_SETLK, &fl) < 0)
		die("another %s may already be running with pid %ld (pidfile %s)", who, (long)lockholder(path), bq(path));
	if (fchmod(fd, 0644) < 0 || ftruncate(fd, 0) < 0 || writeall(fd, text, strlen(text)) < 0)
		die("write %s:", path);
	return fd;
}

/* Make or find the VM.  With QEMU running, nothing of it is touched. */
static int
agentstart(const struct inst *in)
{
	const char *log = keep("%s/serial.log", ha.dir);
	int flags = O_RDWR|O_CREAT|O_CLOEXEC|O_NOFOLLOW;

	ha.adopted = in->driver != 0;
	ha.port = ha.adopted ? portofconfig(ha.dir) : chooseport(ha.c);
	if ((ha.serial = open(log, ha.adopted ? flags : flags|O_TRUNC, 0600)) < 0)
		die("open %s:", log);
	watchadd(&ha.wsig, ha.sig[0], POLLIN, readsignal);
	if ((ha.inotify = inotify_init1(IN_CLOEXEC|IN_NONBLOCK)) < 0 ||
	    (ha.wdserial = inotify_add_watch(ha.inotify, log, IN_MODIFY)) < 0 ||
	    (ha.wddir = inotify_add_watch(ha.inotify, ha.dir, IN_CREATE|IN_MOVED_TO|IN_DELETE)) < 0)
		die("inotify on %s (raise fs.inotify.max_user_instances):", ha.dir);
	ha.log = keep("%s/ha.stderr.log", ha.dir);
	ha.wdlog = inotify_add_watch(ha.inotify, ha.log, IN_MODIFY);    /* -1: in the foreground there is none */
	watchadd(&ha.winotify, ha.inotify, POLLIN, readinotify);
	ha.retry = retryfirst;
	if (ha.c->plain)
		info("Running in plain mode. Mounts, dynamic port forwarding, containerd, etc. will be ignored. Guest agent will not be running.%s",
		    ha.c->forwards.n ? " Static port forwarding is allowed." : "");
	if (ha.c->agent && !agentfor(ha.c, &(size_t){ 0 }))
		warn("There is no guest agent for %s in this limactl: ports are not forwarded by themselves, and the clock is not set", ha.c->arch);
	forwardstart(ha.c, &ha.port, ha.adopted, emitforward);
	mountinit(ha.c, ha.adopted, mountchange);
	inostart(ha.c);
	if (ha.adopted) {
		netstart();
		info("Adopting the running VM (QEMU process %ld)", (long)in->driver);
		if (qmpconnect() < 0)
			warn("connect to %s/ha.qmp:", ha.dir);
		ha.kids[KQEMU].ended = kidended;
		if (procwatch(&ha.kids[KQEMU], in->driver, false) < 0 || lockholder(keep("%s/qemu.pid", ha.dir)) != in->driver) {
			error("QEMU exited while it was being adopted");
			return -1;
		}
		ha.t0 = now();
		hastate(ABOOT, 1000);
		emit(false);
		readconsole();
		return 0;
	}
	sshkeygen(keep("%s/ssh_host_ed25519_key", ha.dir), guesthostname(ha.c->name));
	if (writecidata(ha.c) < 0 || writesshconfig(ha.c, ha.port) < 0)
		return -1;
	netstart();
	(void)unlink(keep("%s/ssh.sock", ha.dir));
	(void)unlink(keep("%s/qemu.pid", ha.dir));
	ha.sandbox = true;
	hastate(ABOOT, silentwait);
	(void)mountfs();
	if (startqemu() < 0)
		return -1;
	emit(false);
	return 0;
}

/* Nothing of a run stays, also when it ends in die; but what an adopted or lost
 * QEMU still uses does.  ha.pid goes last: it says that we are here. */
static void
rmruntime(void)
{
	static const char *const temps[] = { "ha.qmp", "qmp.sock", "serial.sock", "ga.sock", "ha.forwards", "ssh.sock", "qemu.pid", "ha.sock", "ha.pid" };
	size_t i = lockholder(keep("%s/qemu.pid", ha.dir)) ? LEN(temps) - 2 : 0;

	inoend();
	if (i == 0) {
		netclean(ha.c);
		diskrelease(ha.c);
		copydrop(ha.c);
		muxclose();
		mountclean();
	}
	for (; i < LEN(temps); i++)
		(void)unlink(keep("%s/%s", ha.dir, temps[i]));
}

/* The host agent of an instance: its whole life. */
static int
agentmain(const char *name)
{
	struct rlimit none = { 0, 0 }, files;
	static struct inst in;          /* ha.c leads into it, at exit too */
	size_t i;

	for (i = 0; i < NCLIENT; i++)
		ha.client[i].w.fd = -1;
	ha.late.due = statelate;
	ha.relaunch.due = relaunch;
	ha.space.due = spacelate;
	ha.healthdue.due = health;
	ha.namesdue.due = namesdue;
	ha.qmp.fd = ha.serial = check.w.fd = -1;
	if (inspect(&in, name) < 0)
		die("instance %s does not exist", bq(name));
	if (!in.loaded)
		die("instance %s has configuration errors: %s", bq(name), in.errs.v[0]);
	ha.c = &in.conf;
	ha.dir = in.dir;
	ha.sshconfig = keep("%s/ssh.config", ha.dir);
	ha.sshsock = keep("%s/ssh.sock", ha.dir);
	ha.hostname = guesthostname(name);
	(void)setrlimit(RLIMIT_CORE, &none);    /* a core of QEMU's holds the guest's memory */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;        /* the ssh master has one for each connection */
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	/* before the lock is held, for then we may be signalled */
	if (pipe2(ha.sig, O_CLOEXEC|O_NONBLOCK) < 0)
		die("pipe:");
	catchsignals(agentsignal);
	signal(SIGHUP, SIG_IGN);
	umask(0177);            /* for the sockets, QEMU's and ssh's too */
	(void)lockpid(keep("%s/ha.pid", ha.dir), "hostagent");
	atexit(rmruntime);
	watchadd(&ha.wlisten, listenunix(keep("%s/ha.sock", ha.dir)), POLLIN, acceptclient);
	info("hostagent socket created at %s/ha.sock", ha.dir);
	if (agentstart(&in) == 0)
		looprun(agentover);
	else
		ha.st = ACLEAN;
	emit(true);
	return ha.asked || ha.whygone ? 0 : 1;
}

/* ---- 28. Following a start ---------------------------------------------- */

/* start and stop read what the host agent writes: inotify says when, the
 * agent's pidfd says that it is over.  Bytes are read once, from an offset. */

enum outcome { FRUNNING, FDEGRADED, FEXITED, FTIMEOUT, FINTERRUPTED };
static struct {
	int ev, log;                    /* ha.stdout.log, ha.stderr.log, to read */
	int evout, logout;              /* the same for the agent: an offset of their own */
	struct buf evline, logline;
	bool running, degraded, quiet;
	long long port;
	char *last;                     /* last status, as JSON */
	char *stage;                    /* what the status line says */
} fol;

/* Open both logs.  anew: empty them first.  fromend: what is there counts as read. */
static void
followopen(const char *dir, bool anew, bool fromend)
{
	int flags = O_WRONLY|O_CREAT|O_CLOEXEC|O_APPEND|O_NOFOLLOW | (anew ? O_TRUNC : 0);
	const char *a = keep("%s/ha.stdout.log", dir), *b = keep("%s/ha.stderr.log", dir);

	if ((fol.evout = open(a, flags, 0644)) < 0 || (fol.ev = open(a, O_RDONLY|O_CLOEXEC)) < 0)
		die("open %s:", a);
	if ((fol.logout = open(b, flags, 0644)) < 0 || (fol.log = open(b, O_RDONLY|O_CLOEXEC)) < 0)
		die("open %s:", b);
	if (fromend) {
		(void)lseek(fol.ev, 0, SEEK_END);
		(void)lseek(fol.log, 0, SEEK_END);
	}
}

/* Forget all of it: another start is going to be followed. */
static void
followclose(void)
{
	close(fol.ev);
	close(fol.evout);
	close(fol.log);
	close(fol.logout);
	buffree(&fol.evline);
	buffree(&fol.logline);
	free(fol.last);
	free(fol.stage);
	memset(&fol, 0, sizeof fol);
}

/* A line of ha.stderr.log: JSON of ours, or a raw word of QEMU or ssh. */
static void
followlog(const char *s)
{
	/* what ssh says of a guest that is not up yet, or goes down */
	static const char *const passing[] = { "kex_exchange_identification: ", "Connection ", "banner exchange: " };
	struct ydoc d = { 0 };
	struct field f[8] = { { NULL, NULL } };
	const struct ynode *m, *lv, *n;
	struct buf b = { 0 };
	size_t i, nf = 0;

	if (yparsejson(&d, s, strlen(s)) < 0 || !(m = yget(d.root, "msg")) || m->kind != Y_STR ||
	    !(lv = yget(d.root, "level")) || lv->kind != Y_STR) {
		bufputs(&b, "[hostagent] ");
		bufsafe(&b, s, strcspn(s, "\r"));
		for (i = 0; i < LEN(passing) && !startswith(s, passing[i]); i++)
			;
		logline(i < LEN(passing) ? DEBUG : INFO, NULL, b.s);
	} else {
		for (i = 0; i < LEN(levels) - 1 && strcmp(levels[i].name, lv->s) != 0; i++)
			;
		for (n = d.root->first; n && nf < LEN(f) - 1; n = n->next)
			if (n->kind == Y_STR && strcmp(ykey(n), "msg") && strcmp(ykey(n), "level") && strcmp(ykey(n), "time"))
				f[nf++] = (struct field){ ykey(n), n->s };
		f[nf].key = NULL;
		bufprintf(&b, "[hostagent] %s", m->s);
		logline(i > ERROR ? ERROR : (enum level)i, f, b.s);
		if (startswith(m->s, "Boot stage: ")) {
			free(fol.stage);
			fol.stage = strdup(m->s + strlen("Boot stage: "));
			if (fol.stage)
				fol.stage[strcspn(fol.stage, "(")] = '\0';
		}
	}
	yfree(&d);
	buffree(&b);
}

/* A line of ha.stdout.log. */
static void
followevent(const char *s)
{
	struct ydoc d = { 0 };
	const struct ynode *st, *n;
	struct buf b = { 0 };

	if (yparsejson(&d, s, strlen(s)) == 0 && (st = yget(d.root, "status"))) {
		if ((n = yget(st, "sshLocalPort")) && n->i && fol.port != n->i) {
			fol.port = n->i;
			if (!fol.quiet)
				info("SSH Local Port: %lld", fol.port);
		}
		if ((n = yget(st, "errors"))) {
			yjson(&b, n, 0);
			if (!fol.quiet)
				error("%s", b.s);
			b.len = 0;
		}
		fol.running = (n = yget(st, "running")) && n->i;
		fol.degraded = (n = yget(st, "degraded")) && n->i;
		free(fol.last);
		yjson(&b, st, 0);
		fol.last = strdup(b.s);
		buffree(&b);
	}
	yfree(&d);
}

/* Read what is new in a log, a whole line at a time.  True when there was any. */
static bool
followread(int fd, struct buf *line, void (*fn)(const char *))
{
	char chunk[4096];
	ssize_t n, i;
	bool any = false;

	while ((n = read(fd, chunk, sizeof chunk)) > 0)
		for (i = 0; i < n; i++)
			if (chunk[i] != '\n') {
				bufputc(line, chunk[i]);
			} else {
				any = true;
				if (line->len)
					fn(line->s);
				line->len = 0;
			}
	return any;
}

/* Follow until the instance runs (start) or its agent has ended (stop). */
static enum outcome
follow(const char *dir, int pidfd, bool tostop, long long limit)
{
	char chunk[4096];
	struct pollfd p[2];
	long long end = now() + limit, left, tick;
	int in = inotify_init1(IN_CLOEXEC|IN_NONBLOCK);
	bool over = false;

	if (in < 0 || inotify_add_watch(in, keep("%s/ha.stdout.log", dir), IN_MODIFY) < 0 ||
	    inotify_add_watch(in, keep("%s/ha.stderr.log", dir), IN_MODIFY) < 0)
		die("inotify on %s (raise fs.inotify.max_user_instances):", dir);
	for (;;) {
		(void)followread(fol.log, &fol.logline, followlog);
		while (followread(fol.ev, &fol.evline, followevent))
			;
		if (fol.running && !tostop)
			break;
		if (over)
			break;
		if (gotsig || (left = end - now()) <= 0)
			break;
		if (!tostop)
			status("%s", fol.stage ? fol.stage : "starting");
		p[0] = (struct pollfd){ .fd = in, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = pidfd, .events = POLLIN };
		/* a status line counts the seconds; without one nothing wakes us */
		tick = msg.tty && !tostop && left > 1000 ? 1000 : left;
		if (poll(p, 2, tick > INT_MAX ? INT_MAX : (int)tick) < 0)
			continue;
		while (read(in, chunk, sizeof chunk) > 0)
			;
		over = p[1].revents != 0;
	}
	close(in);
	if (fol.running && !tostop)
		return fol.degraded ? FDEGRADED : FRUNNING;
	return over ? FEXITED : gotsig ? FINTERRUPTED : FTIMEOUT;
}

/* The command line of a host agent. */
static void
agentargs(struct args *a, const struct inst *in)
{
	arg(a, "%s", selfpath());
	argwords(a, "hostagent --pidfile");
	arg(a, "%s/ha.pid", in->dir);
	arg(a, "--socket");
	arg(a, "%s/ha.sock", in->dir);
	arg(a, "%s", in->name);
}

/* Start the agent of an instance, its output on the two logs; its pidfd. */
static int
launchagent(const struct inst *in)
{
	struct args a = { 0 };
	struct job j = { .fd = { NOFD, fol.evout, fol.logout }, .session = true };
	pid_t pid;
	int fd;

	agentargs(&a, in);
	j.argv = a.v;
	if ((pid = spawn(&j)) < 0)
		die("run %s hostagent:", a.v[0]);
	if ((fd = pidfdopen(pid)) < 0)
		die("pidfd_open (Linux 5.3 or later is needed):");
	argsfree(&a);
	return fd;
}

/* Wait for the first event or the agent's end, so that its lock is held. */
static void
awaitagent(const char *dir, int pidfd, long long limit)
{
	long long end = now() + limit, left;
	struct pollfd p[2];
	struct stat st;
	int in = inotify_init1(IN_CLOEXEC|IN_NONBLOCK);

	if (in < 0 || inotify_add_watch(in, keep("%s/ha.stdout.log", dir), IN_MODIFY) < 0)
		die("inotify on %s (raise fs.inotify.max_user_instances):", dir);
	while (fstat(fol.ev, &st) == 0 && st.st_size == 0 && !gotsig) {
		p[0] = (struct pollfd){ .fd = in, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = pidfd, .events = POLLIN };
		if ((left = end - now()) <= 0 || (poll(p, 2, left < INT_MAX ? (int)left : -1) > 0 && p[1].revents))
			break;
		if (fstat(fol.ev, &st) == 0 && st.st_size == 0) {
			char chunk[512];
			while (read(in, chunk, sizeof chunk) > 0)
				;
		}
	}
	close(in);
}

/* Show why a start failed: the ends of the console and of the agent's log. */
static void
showlogs(const char *dir)
{
	struct stat st;

	/* without a first event the console is that of an earlier run */
	if (fol.port && stat(keep("%s/serial.log", dir), &st) == 0 && st.st_size > 0) {
		info("The last lines of %s:", bq(keep("%s/serial.log", dir)));
		showtail(keep("%s/serial.log", dir), consolelines, "| ");
	}
	info("The last lines of %s:", bq(keep("%s/ha.stderr.log", dir)));
	showtail(keep("%s/ha.stderr.log", dir), 5, "| ");
}

static int lockinstance(struct inst *in);

/* What a new QEMU needs; the instance's lock is held. */
static void
prepare(const struct inst *in)
{
	checkdriver(&in->conf);
	checkqemu(&in->conf);
	preparedisk(&in->conf, in->dir);
	diskattach(&in->conf);
}

/* Run an instance: launch or join its agent and follow it.  Dies on failure. */
static void
startinstance(struct inst *in, long long limit)
{
	const char *hint = keep("(hint: see %s)", bq(keep("%s/ha.stderr.log", in->dir)));
	int lock = lockinstance(in), pidfd;
	pid_t agent = in->agent;

	if (!in->loaded)
		die("instance \"%s\" has configuration errors: %s", in->name, in->errs.v[0]);
	if (agent < 0 || in->driver < 0)
		die("the instance %s runs in another container that shares %s", bq(in->name), host.limahome);
	if (agent) {
		info("The instance %s is being started already; following it", bq(in->name));
		followopen(in->dir, false, false);
		if ((pidfd = holderpidfd(keep("%s/ha.pid", in->dir), agent)) < 0)
			die("watch process %ld:", (long)agent);
	} else {
		if (!in->driver) {
			prepare(in);
			if (gotsig)
				die("interrupted");
		}
		info("Starting the instance %s with internal VM driver `qemu`", bq(in->name));
		followopen(in->dir, true, false);
		pidfd = launchagent(in);
		awaitagent(in->dir, pidfd, limit);
	}
	close(lock);
	switch (follow(in->dir, pidfd, false, limit)) {
	case FRUNNING:
		close(pidfd);
		return;
	case FDEGRADED:
		warn("DEGRADED. The VM seems running, but file sharing and port forwarding may not work. %s", hint);
		die("degraded, status=%s", fol.last);
	case FEXITED:
		showlogs(in->dir);
		if (fol.last)
			die("exiting, status=%s %s", fol.last, hint);
		die("host agent process has exited before the VM was launched %s", hint);
	case FTIMEOUT:
		showlogs(in->dir);
		die("did not receive an event with the `running` status within %lld s %s; the VM runs on (`limactl stop %s` ends it)", limit / 1000, hint, in->name);
	case FINTERRUPTED:
		die("interrupted; the instance %s goes on starting in the background (`limactl stop %s` ends it)", bq(in->name), in->name);
	}
}

/* The playbooks of provision mode ansible, run on the host once the guest is
 * ready, with its ssh.config for a connection and param in the environment. */
static void
runplaybooks(const struct inst *in)
{
	const struct provision *p = in->conf.provisions.v;
	const struct pair *v = in->conf.param.v;
	const char *inventory = keep("%s/ansible-inventory.yaml", in->dir), *text;
	struct args a = { 0 };
	size_t i, k;
	pid_t pid;
	int st;

	for (i = 0; i < in->conf.provisions.n; i++) {
		if (strcmp(p[i].mode, "ansible") != 0 || !p[i].playbook)
			continue;
		if (!findprog("ansible-playbook"))
			die("ansible-playbook: not found in PATH; install ansible (the VM runs on)");
		text = keep("lima:\n  hosts:\n    %s:\n      ansible_connection: ssh\n      ansible_host: %s\n"
		    "      ansible_ssh_common_args: \"-F '%s/ssh.config'\"\n", in->name, guesthostname(in->name), in->dir);
		if (writefile(inventory, text, strlen(text), 0644) < 0)
			die("write %s:", inventory);
		for (k = 0; k < in->conf.param.n; k++)
			if (setenv(keep("PARAM_%s", v[k].key), v[k].val, 1) < 0)
				die("setenv:");
		argsfree(&a);
		argwords(&a, "ansible-playbook -i");
		arg(&a, "%s", inventory);
		arg(&a, "%s", p[i].playbook);
		info("Waiting for ansible playbook %s", bq(p[i].playbook));
		pid = spawn(&(struct job){ .argv = a.v, .fd = { NOFD, 2, 2 } });       /* its report is for the user, stdout for data */
		st = pid < 0 ? -1 : waitchild(pid);
		if (st != 0)
			die("ansible-playbook %s %s (the VM runs on)", p[i].playbook, ended(st));
	}
	argsfree(&a);
}

/* The last words of a start. */
static void
ready(const struct inst *in)
{
	struct inst in2 = *in;
	char *m, *line;

	runplaybooks(in);
	if (in->conf.plain)
		info("READY. Run `ssh -F %s %s` to open the shell.", bq(keep("%s/ssh.config", in->dir)), guesthostname(in->name));
	else if (strcmp(in->name, "default") == 0)
		info("READY. Run `lima` to open the shell.");
	else
		info("READY. Run `limactl shell %s` to open the shell.", in->name);
	in2.sshport = portofconfig(in->dir);    /* known only now */
	instmessage(&in2);
	m = keep("%s", in2.message ? in2.message : "");
	if (!*m)
		return;
	info("Message from the instance %s:", bq(in->name));
	while ((line = strsep(&m, "\n")))
		fprintf(stderr, "%s\n", line);
}

/* ---- 29. Command line --------------------------------------------------- */

/* Commands and flags are rows; parser, help and the edits of lima.yaml walk the
 * same rows.  A flag belongs to the commands whose bits it names. */

/* A bit for each command that has flags of its own. */
#define B(n) (UINT64_C(1) << (n))
#define GLOBAL    B(0)
#define CREATE    B(1)
#define START     B(2)
#define STOP      B(3)
#define SHELL     B(4)
#define LIST      B(5)
#define DELETE    B(6)
#define VALIDATE  B(7)
#define INFO_     B(8)
#define AGENT     B(9)
#define HELP      B(10)
#define RESTART   B(11)
#define EDIT      B(12)
#define CLONE     B(13)         /* and rename */
#define COPY      B(14)
#define SHOWSSH   B(15)
#define SNAPTAG   B(16)         /* snapshot create, apply, delete */
#define SNAPLIST  B(17)
#define TUNNEL    B(18)
#define WATCH     B(19)
#define AUTOSTART B(20)
#define ATLOGIN   B(21)
#define NETLIST   B(22)
#define NETCREATE B(23)
#define NETDELETE B(24)
#define DISKCREATE B(25)
#define DISKLIST  B(26)
#define DISKDELETE B(27)
#define DISKRESIZE B(28)
#define PRUNE     B(29)
#define TMPLCOPY  B(30)
#define COMPLETE  B(32)
#define SCREENSHOT B(33)
#define USERNET   B(34)
#define SFTP      B(36)
#define RAW       B(62)         /* every word behind it is its own */
#define NOFLAGS   B(63)         /* the global ones only */
#define EDITS     (CREATE|START|RESTART|EDIT|CLONE)
#define NEWONLY   (B(FARCH)|B(FCONTAINERD)|B(FPLAIN)|B(FVARIANT))       /* flags for a new instance */
enum ftype { FBOOL, FSTR, FINT, FUINT16, FFLOAT, FDURATION, FLIST, FARRAY };
enum flagid {
	FLOGLEVEL, FLOGFORMAT, FDEBUG, FTTY, FYES, FHELP, FVERSION,
	FYQ, FFILTER, FINFOYQ,
	FCPUS, FDNS, FMEMORY, FMOUNT, FMOUNTONLY, FMOUNTNONE, FMOUNTTYPE, FVMTYPE, FINOTIFY, FWRITABLE, FNETWORK, FNESTED, FROSETTA,
	FSET, FPARAM, FVIDEO, FAUDIODEVICE, FAUDIOIF, FSSHPORT, FVARIANT, FARCH, FCONTAINERD, FDISK, FPLAIN, FPORTFORWARD, FSHELLPATH,
	FNAME, FLISTTEMPLATES, FLISTDRIVERS, FTIMEOUTFLAG, FFOREGROUND, FFORCE,
	FSHELL, FWORKDIR, FINSTANCE, FFORMAT, FJSON, FQUIET, FLISTFIELDS, FALLFIELDS, FFILL, FEMBED, FEMBEDALL, FVERBATIM, FKEEPREFERRED, FPIDFILE, FSOCKET,
	FREADONLY, FFOLLOW, FGUESTUID, FOPENSSH,
	FPROGRESS, FSTARTIT, FRECURSIVE, FVERBOSE, FBACKEND, FSHOWFORMAT, FTUNNELTYPE, FSOCKSPORT,
	FTAG, FMODE, FGATEWAY, FINTERFACE, FCONDITION, FUSERUNIT, FENABLED, FHISTORY, FWATCHALL, FNODESC, FOUTPUT, FPRESERVEENV, FRECONNECT, FSYNC, FSIZE, FDISKFORMAT, NFLAG,
};
static struct { bool set, b; const char *s; long long n; struct args words; } opt[NFLAG];

/* A boolean as strconv.ParseBool reads it; false when it is none. */
static bool
boolword(const char *s, bool *out)
{
	static const char *const t[] = { "1", "t", "T", "TRUE", "true", "True" }, *const f[] = { "0", "f", "F", "FALSE", "false", "False" };
	size_t i;

	for (i = 0; i < LEN(t); i++)
		if (strcmp(s, t[i]) == 0 || strcmp(s, f[i]) == 0) {
			*out = strcmp(s, t[i]) == 0;
			return true;
		}
	return false;
}

static _Noreturn PRINTF(2, 3) void
badflag(const char *name, const char *fmt, ...)
{
	char why[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	die("error while processing flag `%s`: %s", name, why);
}

/* A string of the expression language. */
static void
xquote(struct buf *b, const char *s)
{
	static const char from[] = "\n\t\r\"\\", to[] = "ntr\"\\";
	const char *e;

	bufputc(b, '"');
	for (; *s; s++) {
		e = strchr(from, *s);
		bufputs(b, e ? "\\" : "");
		bufputc(b, e ? to[e - from] : *s);
	}
	bufputc(b, '"');
}

/* The items of flags: what a word of one stands for in its expression.  A word
 * that stands for nothing ends the command. */
static void
itemdns(struct buf *b, const char *word)
{
	unsigned char addr[16];

	if (inet_pton(AF_INET, word, addr) != 1 && inet_pton(AF_INET6, word, addr) != 1)
		die("invalid argument \"%s\" for \"--dns\" flag: invalid string being converted to IP address: %s", opt[FDNS].s, word);
	xquote(b, word);
}

static void itemmount(struct buf *b, const char *word);
static void itemparam(struct buf *b, const char *word);
static void itemforward(struct buf *b, const char *word);

static void
itemnetwork(struct buf *b, const char *word)
{
	if (strcmp(word, "vzNAT") == 0) {
		bufputs(b, "{\"vzNAT\": true}");
		return;
	}
	if (!startswith(word, "lima:"))
		badflag("network", "network name must be `vzNAT` or `lima:*`, got %s", bq(word));
	bufputs(b, "{\"lima\": ");
	xquote(b, word + 5);
	bufputc(b, '}');
}

static void
itemvideo(struct buf *b, const char *word)
{
	bool on = false;

	(void)boolword(word, &on);
	bufputs(b, on ? "\"default\"" : "\"none\"");
}

static void
itemcontainerd(struct buf *b, const char *word)
{
	static const char *const modes[] = { "none", "user", "system", "user+system", "system+user" };

	if (!oneof(word, modes, LEN(modes)))
		badflag("containerd", "expected one of [`user`, `system`, `user+system`, `none`], got %s", bq(word));
	bufprintf(b, ".containerd.user = %s | .containerd.system = %s", strstr(word, "user") ? "true" : "false",
	    strstr(word, "system") ? "true" : "false");
}

static const struct flag {
	const char *name;
	char ch;
	enum ftype type;
	uint64_t cmds;
	/* the edit of lima.yaml it is: in the expression %s is the value, %q the
	 * value quoted, %g shortest decimal, %l the items that item makes of each
	 * word of it */
	const char *expr;
	void (*item)(struct buf *b, const char *word);
	const char *help;
} flags[] = {
	[FLOGLEVEL]      = { "log-level", 0, FSTR, GLOBAL, NULL, NULL, "trace, debug, info, warn, error" },
	[FLOGFORMAT]     = { "log-format", 0, FSTR, GLOBAL, NULL, NULL, "text or json" },
	[FDEBUG]         = { "debug", 0, FBOOL, GLOBAL, NULL, NULL, "debug messages" },
	[FTTY]           = { "tty", 0, FBOOL, GLOBAL, NULL, NULL, "allow questions (default: stdout is a terminal)" },
	[FYES]           = { "yes", 'y', FBOOL, GLOBAL, NULL, NULL, "same as --tty=false" },
	[FHELP]          = { "help", 'h', FBOOL, GLOBAL, NULL, NULL, "help for the command" },
	[FVERSION]       = { "version", 'v', FBOOL, HELP, NULL, NULL, "version" },
	/* the edits of lima.yaml, in the order in which they are applied */
	[FCPUS]          = { "cpus", 0, FINT, EDITS, ".cpus = %s", NULL, "number of CPUs" },
	[FDNS]           = { "dns", 0, FLIST, EDITS, ".dns += [%l] | .dns |= unique | .hostResolver.enabled=false", itemdns, "name servers of the guest" },
	[FMEMORY]        = { "memory", 0, FFLOAT, EDITS, ".memory = \"%gGiB\"", NULL, "memory in GiB" },
	[FMOUNT]         = { "mount", 0, FLIST, EDITS, ".mounts = [%l] + .mounts", itemmount, "also share DIR, writable as DIR:w" },
	[FMOUNTONLY]     = { "mount-only", 0, FLIST, EDITS, ".mounts = [%l]", itemmount, "share DIR or DIR:w and nothing else" },
	[FMOUNTNONE]     = { "mount-none", 0, FBOOL, EDITS, ".mounts = null", NULL, "share nothing" },
	[FMOUNTTYPE]     = { "mount-type", 0, FSTR, EDITS, ".mountType = %q", NULL, "reverse-sshfs, 9p or virtiofs" },
	[FVMTYPE]        = { "vm-type", 0, FSTR, EDITS, ".vmType = %q", NULL, "qemu" },
	[FINOTIFY]       = { "mount-inotify", 0, FBOOL, EDITS, ".mountInotify = %s", NULL, "pass file changes on to the guest (experimental)" },
	[FWRITABLE]      = { "mount-writable", 0, FBOOL, EDITS, ".mounts[].writable = %s", NULL, "make all mounts writable" },
	[FNETWORK]       = { "network", 0, FLIST, EDITS, ".networks += [%l] | .networks |= unique_by(.lima)", itemnetwork, "join a network, as lima:user-v2" },
	[FNESTED]        = { "nested-virt", 0, FBOOL, EDITS, ".nestedVirtualization = %s", NULL, "virtualisation in the guest" },
	[FROSETTA]       = { "rosetta", 0, FBOOL, EDITS, ".vmOpts.vz.rosetta.enabled = %s | .vmOpts.vz.rosetta.binfmt = %s", NULL, "no effect with QEMU" },
	[FSET]           = { "set", 0, FARRAY, EDITS, "%s", NULL, "apply an expression, as '.cpus = 2 | .memory = \"2GiB\"'" },
	[FPARAM]         = { "param", 0, FARRAY, EDITS, "%l", itemparam, "set a parameter of the template, as KEY=VALUE" },
	[FVIDEO]         = { "video", 0, FBOOL, EDITS, ".video.display = %l", itemvideo, "show the screen" },
	[FAUDIODEVICE]   = { "audio-device", 0, FSTR, CREATE|START, ".audio.device = %q", NULL, "sound back end of QEMU (experimental)" },
	[FAUDIOIF]       = { "audio-interface", 0, FSTR, CREATE|START, ".audio.interface = %q", NULL, "hda or virtio (experimental)" },
	[FSSHPORT]       = { "ssh-port", 0, FUINT16, EDITS, ".ssh.localPort = %s", NULL, "port of ssh on 127.0.0.1 (0: any)" },
	[FVARIANT]       = { "image-variant", 0, FSTR, CREATE|START, ".images = [.images[] | select(.variant == %q)]", NULL, "only images of this variant, for a new instance" },
	[FARCH]          = { "arch", 0, FSTR, CREATE|START, ".arch = %q", NULL, "machine architecture of a new instance" },
	[FCONTAINERD]    = { "containerd", 0, FSTR, CREATE|START, "%l", itemcontainerd, "user, system, user+system or none, for a new instance" },
	[FDISK]          = { "disk", 0, FFLOAT, EDITS, ".disk= \"%gGiB\"", NULL, "disk size in GiB" },
	[FPLAIN]         = { "plain", 0, FBOOL, CREATE|START|EDIT, ".plain = %s", NULL, "a user and ssh, nothing else (new instance)" },
	[FPORTFORWARD]   = { "port-forward", 0, FARRAY, CREATE|START, ".portForwards += [%l]", itemforward, "forward a port, as HOST:GUEST[,static=true]" },
	[FSHELLPATH]     = { "shell", 0, FSTR, EDITS, ".user.shell = %q", NULL, "login shell in the guest" },
	[FNAME]          = { "name", 0, FSTR, CREATE|START, NULL, NULL, "name of the instance" },
	[FLISTTEMPLATES] = { "list-templates", 0, FBOOL, CREATE|START, NULL, NULL, "print the template names" },
	[FLISTDRIVERS]   = { "list-drivers", 0, FBOOL, CREATE|START, NULL, NULL, "print the driver names" },
	[FTIMEOUTFLAG]   = { "timeout", 0, FDURATION, START, NULL, NULL, "wait so long for Running (default 10m0s)" },
	[FFOREGROUND]    = { "foreground", 0, FBOOL, START, NULL, NULL, "become the host agent" },
	[FFORCE]         = { "force", 'f', FBOOL, STOP|RESTART|DELETE|NETDELETE|DISKDELETE, NULL, NULL, "do not wait for the guest" },
	[FSHELL]         = { "shell", 0, FSTR, SHELL, NULL, NULL, "shell to run, e.g. /bin/bash" },
	[FWORKDIR]       = { "workdir", 0, FSTR, SHELL, NULL, NULL, "directory to start in" },
	[FINSTANCE]      = { "instance", 0, FSTR, SHELL, NULL, NULL, NULL },
	[FFORMAT]        = { "format", 'f', FSTR, LIST, NULL, NULL, "table, json, yaml, or a template like '{{.Name}}'" },
	[FYQ]            = { "yq", 0, FARRAY, LIST, NULL, NULL, "evaluate an expression on each instance" },
	[FFILTER]        = { "filter", 'l', FARRAY, LIST, NULL, NULL, "only instances for which an expression is true" },
	[FINFOYQ]        = { "yq", 0, FSTR, INFO_, NULL, NULL, "evaluate an expression on it" },
	[FJSON]          = { "json", 0, FBOOL, LIST|NETLIST|WATCH|DISKLIST, NULL, NULL, "print JSON, an object on a line" },
	[FQUIET]         = { "quiet", 'q', FBOOL, LIST|SNAPLIST, NULL, NULL, "names only" },
	[FLISTFIELDS]    = { "list-fields", 0, FBOOL, LIST, NULL, NULL, "print the fields that a template can name, and exit" },
	[FALLFIELDS]     = { "all-fields", 0, FBOOL, LIST, NULL, NULL, "hide no column in a narrow terminal" },
	[FFILL]          = { "fill", 0, FBOOL, VALIDATE|TMPLCOPY, NULL, NULL, "print the configuration with its defaults" },
	[FEMBED]         = { "embed", 0, FBOOL, TMPLCOPY, NULL, NULL, "embed bases and files, but not template: ones" },
	[FEMBEDALL]      = { "embed-all", 0, FBOOL, TMPLCOPY, NULL, NULL, "embed all bases and files" },
	[FVERBATIM]      = { "verbatim", 0, FBOOL, TMPLCOPY, NULL, NULL, "copy the bytes as they are" },
	[FKEEPREFERRED]  = { "keep-referred", 0, FBOOL, PRUNE, NULL, NULL, "keep what an instance or a template names" },
	[FPIDFILE]       = { "pidfile", 'p', FSTR, AGENT|SFTP, NULL, NULL, NULL },
	[FSOCKET]        = { "socket", 0, FSTR, AGENT, NULL, NULL, NULL },
	[FREADONLY]      = { "read-only", 0, FBOOL, SFTP, NULL, NULL, NULL },
	[FFOLLOW]        = { "follow-symlinks", 0, FBOOL, SFTP, NULL, NULL, NULL },
	[FOPENSSH]       = { "openssh", 0, FBOOL, SFTP, NULL, NULL, NULL },
	[FGUESTUID]      = { "guest-uid", 0, FINT, SFTP, NULL, NULL, NULL },
	[FPROGRESS]      = { "progress", 0, FBOOL, START|RESTART|AGENT, NULL, NULL, "taken for compatibility: the stages of the boot are shown anyway" },
	[FSTARTIT]       = { "start", 0, FBOOL, SHELL|CLONE|EDIT, NULL, NULL, "start the instance, without asking" },
	[FRECURSIVE]     = { "recursive", 'r', FBOOL, COPY, NULL, NULL, "copy directories with what they hold" },
	[FVERBOSE]       = { "verbose", 'v', FBOOL, COPY, NULL, NULL, "show what is done" },
	[FBACKEND]       = { "backend", 0, FSTR, COPY, NULL, NULL, "scp, rsync or auto (default auto)" },
	[FSHOWFORMAT]    = { "format", 'f', FSTR, SHOWSSH, NULL, NULL, "cmd, args, options or config (default cmd)" },
	[FTUNNELTYPE]    = { "type", 0, FSTR, TUNNEL, NULL, NULL, "socks" },
	[FSOCKSPORT]     = { "socks-port", 0, FINT, TUNNEL, NULL, NULL, "port of the proxy on 127.0.0.1 (0: any)" },
	[FTAG]           = { "tag", 0, FSTR, SNAPTAG, NULL, NULL, "name of the snapshot" },
	[FMODE]          = { "mode", 0, FSTR, NETCREATE, NULL, NULL, "user-v2, host, shared or bridged (default user-v2)" },
	[FGATEWAY]       = { "gateway", 0, FSTR, NETCREATE, NULL, NULL, "address and width, such as 192.168.42.1/24" },
	[FINTERFACE]     = { "interface", 0, FSTR, NETCREATE, NULL, NULL, "interface of a bridged network" },
	[FCONDITION]     = { "condition", 0, FSTR, AUTOSTART, NULL, NULL, "login" },
	[FUSERUNIT]      = { "user", 0, FSTR, AUTOSTART, NULL, NULL, NULL },
	[FENABLED]       = { "enabled", 0, FBOOL, ATLOGIN, NULL, NULL, "register, or with =false unregister (default true)" },
	[FHISTORY]       = { "history", 0, FBOOL, WATCH, NULL, NULL, "show older events first" },
	[FWATCHALL]      = { "verbose", 0, FBOOL, WATCH, NULL, NULL, "show log lines from level info on" },
	[FNODESC]        = { "no-descriptions", 0, FBOOL, COMPLETE, NULL, NULL, "candidates without explanations" },
	[FOUTPUT]        = { "output", 'o', FSTR, SCREENSHOT, NULL, NULL, "file to write" },
	[FPRESERVEENV]   = { "preserve-env", 0, FBOOL, SHELL, NULL, NULL, "pass the environment on" },
	[FRECONNECT]     = { "reconnect", 0, FBOOL, SHELL, NULL, NULL, "make the ssh connection anew, with new groups" },
	[FSYNC]          = { "sync", 0, FSTR, SHELL, NULL, NULL, "copy this directory to the guest, run, and copy it back" },
	[FSIZE]          = { "size", 0, FSTR, DISKCREATE|DISKRESIZE, NULL, NULL, "size, such as 10GiB" },
	[FDISKFORMAT]    = { "format", 0, FSTR, DISKCREATE, NULL, NULL, "qcow2 or raw (default qcow2)" },
};
_Static_assert(LEN(flags) == NFLAG, "a row for every flag");

/* DIR or DIR:w.  What is asked for together with --plain is meant to be there. */
static void
itemmount(struct buf *b, const char *word)
{
	bool w = endswith(word, ":w");
	const char *dir = tilde(keep("%.*s", (int)strlen(word) - (w ? 2 : 0), word));
	char cwd[PATH_MAX];

	if (*dir != '/' && !getcwd(cwd, sizeof cwd))
		die("getcwd:");
	dir = lexclean(*dir == '/' ? dir : keep("%s/%s", cwd, dir));
	bufputs(b, "{\"location\": ");
	xquote(b, dir);
	bufputs(b, ", \"mountPoint\": ");
	xquote(b, dir);
	bufprintf(b, ", \"writable\": %s%s}", w ? "true" : "false", opt[FPLAIN].b ? ", \"static\": true" : "");
}

static void
itemparam(struct buf *b, const char *word)
{
	const char *eq = strchr(word, '=');

	if (!eq)
		badflag("param", "invalid parameter %s, expected NAME=VALUE", bq(word));
	bufputs(b, ".param[");
	xquote(b, keep("%.*s", (int)(eq - word), word));
	bufputs(b, "] = ");
	xquote(b, eq + 1);
}

/* A word without the blanks around it. */
static const char *
trimmed(const char *s, size_t n)
{
	while (n && strchr(" \t", *s))
		s++, n--;
	while (n && strchr(" \t", s[n - 1]))
		n--;
	return keep("%.*s", (int)n, s);
}

/* HOST:GUEST[,static=BOOL] */
static void
itemforward(struct buf *b, const char *word)
{
	size_t n = strcspn(word, ","), h = strcspn(word, ":");
	const char *more = word[n] ? word + n + 1 : NULL, *s;
	bool fixed = opt[FPLAIN].b;

	if (more && strchr(more, ','))
		badflag("port-forward", "invalid port forward format %s, expected HOST:GUEST or HOST:GUEST,static=true", bq(word));
	if (h >= n || memchr(word + h + 1, ':', n - h - 1))
		badflag("port-forward", "invalid port forward format %s, expected HOST:GUEST", bq(keep("%.*s", (int)n, word)));
	if (more) {
		s = trimmed(more, strlen(more));
		if (!startswith(s, "static="))
			badflag("port-forward", "invalid parameter %s, expected `static=` followed by a boolean value", bq(s));
		if (!boolword(s + 7, &fixed))
			badflag("port-forward", "invalid value for static parameter: %s", bq(s + 7));
	}
	bufputs(b, "{\"guestPort\": ");
	xquote(b, trimmed(word + h + 1, n - h - 1));
	bufputs(b, ", \"hostPort\": ");
	xquote(b, trimmed(word, h));
	bufprintf(b, ", \"static\": %s}", fixed ? "true" : "false");
}

/* A group is a row without run; its commands have its name before theirs. */
struct cmd {
	const char *name, *alias;       /* alias: words with a blank between them, or NULL */
	uint64_t bit;
	int min, max;                   /* arguments; max -1: any number */
	const char *args, *help;        /* help NULL: hidden */
	int (*run)(int argc, char *argv[]);
};
static const struct cmd *findcmd(const struct cmd *group, const char *name);
static const struct cmd *curcmd;        /* the one that runs */

/* 90s, 1h30m, -1.5h, 0: milliseconds.  False when it is no duration. */
static bool
duration(const char *s, long long *out)
{
	static const struct { const char *unit; double ms; } t[] = {
		{ "ns", 1e-6 }, { "us", 1e-3 }, { "\302\265s", 1e-3 }, { "ms", 1 }, { "s", 1e3 }, { "m", 6e4 }, { "h", 3.6e6 },
	};
	double total = 0, v, sign = *s == '-' ? -1 : 1;
	char *end;
	size_t i;

	s += *s == '-' || *s == '+';
	if (strcmp(s, "0") == 0)
		return *out = 0, true;
	do {
		if (!isdigit((unsigned char)*s) && *s != '.')
			return false;
		v = strtod(s, &end);
		for (i = 0; i < LEN(t) && !startswith(end, t[i].unit); i++)
			;
		if (end == s || i == LEN(t))
			return false;
		total += v * t[i].ms;
		s = end + strlen(t[i].unit);
	} while (*s);
	*out = (long long)(sign * total);
	return total < 1e15;
}

/* The words of a list, divided at commas but within double quotes (CSV). */
static void
splitwords(struct args *a, const char *s)
{
	struct buf b = { 0 };
	bool quoted = false;

	for (bufputs(&b, ""); ; s++) {
		if (*s == '"' && quoted && s[1] == '"')
			bufputc(&b, *s++);
		else if (*s == '"')
			quoted = !quoted;
		else if (!*s || (*s == ',' && !quoted)) {
			arg(a, "%s", b.s);
			b.len = 0;
			bufputs(&b, "");
			if (!*s)
				break;
		} else
			bufputc(&b, *s);
	}
	buffree(&b);
}

/* Take a flag's value. */
static void
setflag(enum flagid id, const char *val)
{
	const struct flag *f = &flags[id];
	const char *shown = f->ch ? keep("-%c, --%s", f->ch, f->name) : keep("--%s", f->name), *why = NULL;
	char *end;
	size_t i;

	opt[id].set = true;
	opt[id].s = val;
	if (f->type == FBOOL && !boolword(val, &opt[id].b))
		why = keep("strconv.ParseBool: parsing \"%s\": invalid syntax", val);
	else if (f->type == FINT && parsenum(val, LLONG_MIN, LLONG_MAX, &opt[id].n) < 0)
		why = keep("strconv.ParseInt: parsing \"%s\": invalid syntax", val);
	else if (f->type == FUINT16 && parsenum(val, 0, 65535, &opt[id].n) < 0)
		why = keep("strconv.ParseUint: parsing \"%s\": %s", val, *val && !val[strspn(val, "0123456789")] ? "value out of range" : "invalid syntax");
	else if (f->type == FDURATION && !duration(val, &opt[id].n))
		why = keep("time: invalid duration \"%s\"", val);
	else if (f->type == FFLOAT && (!isdigit((unsigned char)val[*val == '.']) || (strtof(val, &end), *end)))
		why = keep("strconv.ParseFloat: parsing \"%s\": invalid syntax", val);
	if (why)
		die("invalid argument \"%s\" for \"%s\" flag: %s", val, shown, why);
	if (f->type == FLIST) {
		splitwords(&opt[id].words, val);
		for (i = 0; id == FDNS && i < opt[id].words.n; i++) {
			struct buf b = { 0 };
			itemdns(&b, opt[id].words.v[i]);        /* refuses what is none, like a number that is none */
			buffree(&b);
		}
	} else {
		if (f->type != FARRAY)          /* the last one counts */
			argsfree(&opt[id].words);
		arg(&opt[id].words, "%s", val);
	}
}

static int
flagbyname(const char *name, size_t len, uint64_t cmds)
{
	int i;

	for (i = 0; i < NFLAG; i++)
		if ((flags[i].cmds & cmds) && strlen(flags[i].name) == len && strncmp(flags[i].name, name, len) == 0)
			return i;
	return -1;
}

/* Parse one flag word; the number of words it took. */
static int
parseflag(char *argv[], uint64_t cmds)
{
	const char *w = argv[0], *eq;
	int id, i;

	if (w[1] == '-') {
		eq = strchr(w, '=');
		id = flagbyname(w + 2, eq ? (size_t)(eq - w - 2) : strlen(w + 2), cmds);
		if (id < 0)
			die("unknown flag: %.*s", eq ? (int)(eq - w) : (int)strlen(w), w);
		if (eq || flags[id].type == FBOOL) {
			setflag((enum flagid)id, eq ? eq + 1 : "true");
			return 1;
		}
		if (!argv[1])
			die("flag needs an argument: --%s", flags[id].name);
		setflag((enum flagid)id, argv[1]);
		return 2;
	}
	for (i = 1; w[i]; i++) {
		for (id = 0; id < NFLAG && !((flags[id].cmds & cmds) && flags[id].ch == w[i]); id++)
			;
		if (id == NFLAG)
			die("unknown shorthand flag: '%c' in %s", w[i], w);
		if (flags[id].type == FBOOL) {
			setflag((enum flagid)id, w[i + 1] == '=' ? w + i + 2 : "true");
			if (w[i + 1] == '=')
				return 1;
			continue;
		}
		if (w[i + 1])
			setflag((enum flagid)id, w + i + 1 + (w[i + 1] == '='));
		else if (argv[1])
			setflag((enum flagid)id, argv[1]);
		else
			die("flag needs an argument: '%c' in %s", w[i], w);
		return w[i + 1] ? 1 : 2;
	}
	return 1;
}

static _Noreturn void unknowncmd(const char *name);
static void runplugin(char *argv[]);

/* Parse the words after the program's name: the command, its flags and its
 * arguments, which are left in argv[0..*argc).  NULL: no command was named. */
static const struct cmd *
parseargs(int *argc, char *argv[])
{
	const struct cmd *c = NULL, *sub;
	int i = 0, n = 0;

	while (i < *argc) {
		if (argv[i][0] == '-' && argv[i][1] && strcmp(argv[i], "--") != 0) {
			i += parseflag(argv + i, GLOBAL | (c ? c->bit : HELP));
		} else if (!c) {
			if (!(c = findcmd(NULL, argv[i]))) {
				runplugin(argv + i);
				unknowncmd(argv[i]);
			}
			i++;
			while ((c->bit & RAW) && i < *argc)
				argv[n++] = argv[i++];
		} else if (!c->run) {
			/* a word that is no command of the group: the group's help */
			if (!(sub = findcmd(c, argv[i])))
				break;
			c = sub;
			i++;
		} else if (strcmp(argv[i], "--") == 0) {
			/* shell drops one -- itself when it stands after the instance */
			for (i++; i < *argc; i++)
				argv[n++] = argv[i];
		} else {
			argv[n++] = argv[i++];
			if (c->bit == SHELL || c->bit == TUNNEL)        /* the rest is the command */
				while (i < *argc)
					argv[n++] = argv[i++];
		}
	}
	argv[n] = NULL;
	*argc = n;
	return c;
}

/* Apply what the global flags say. */
static void
globalflags(void)
{
	static const struct { const char *name; enum level lv; } names[] = {
		{ "trace", TRACE }, { "debug", DEBUG }, { "info", INFO }, { "warn", WARN }, { "warning", WARN },
		{ "error", ERROR }, { "fatal", FATAL }, { "panic", PANIC },
	};
	size_t i;

	if (opt[FLOGFORMAT].set) {
		msg.json = strcmp(opt[FLOGFORMAT].s, "json") == 0;
		if (!msg.json && strcmp(opt[FLOGFORMAT].s, "text") != 0)
			die("unsupported log-format: %s", bq(opt[FLOGFORMAT].s));
	}
	if (opt[FDEBUG].b)
		msg.min = DEBUG;
	if (opt[FLOGLEVEL].set && *opt[FLOGLEVEL].s) {
		for (i = 0; i < LEN(names) && strcasecmp(names[i].name, opt[FLOGLEVEL].s) != 0; i++)
			;
		if (i == LEN(names))
			die("not a valid logrus Level: \"%s\"", opt[FLOGLEVEL].s);
		msg.min = names[i].lv;
	}
	if (opt[FTTY].set && opt[FYES].set)
		die("cannot use both --tty and --yes flags at the same time");
	if (opt[FYES].b)
		opt[FTTY].b = false;
}

/* Was a flag given that edits lima.yaml? */
static bool
editflags(void)
{
	int i;

	for (i = 0; i < NFLAG; i++)
		if (opt[i].set && flags[i].expr)
			return true;
	return false;
}

/* The expression that a flag stands for. */
static void
flagexpr(struct buf *b, enum flagid id)
{
	const char *p, *val = opt[id].s;
	const struct args *w = &opt[id].words;
	char num[32];
	size_t i;
	int prec;

	if (flags[id].type == FBOOL)
		val = opt[id].b ? "true" : "false";
	for (p = flags[id].expr; *p; p++) {
		if (*p != '%') {
			bufputc(b, *p);
			continue;
		}
		switch (*++p) {
		case 's':
			bufputs(b, val);
			break;
		case 'q':
			xquote(b, val);
			break;
		case 'g':               /* the shortest that reads as the same float */
			for (prec = 1; snprintf(num, sizeof num, "%.*g", prec, strtod(val, NULL)), strtof(num, NULL) != strtof(val, NULL) && prec < 9; prec++)
				;
			bufputs(b, num);
			break;
		case 'l':               /* the last --mount is asked first, so it stands first */
			for (i = 0; i < w->n; i++) {
				bufputs(b, i ? "," : "");
				flags[id].item(b, w->v[id == FMOUNT ? w->n - 1 - i : i]);
			}
		}
	}
}

/* What flags say that their expressions do not. */
static void
checkflags(const char *text)
{
	static const enum flagid trial[] = { FINOTIFY, FAUDIODEVICE, FAUDIOIF };
	struct ydoc d = { 0 };
	struct args *w;
	struct buf b = { 0 };
	size_t i;

	if (opt[FMOUNT].set && opt[FMOUNTONLY].set)
		badflag("mount", "flag `--mount` conflicts with `--mount-only`");
	if (opt[FMOUNTNONE].set && (opt[FMOUNT].set || opt[FMOUNTONLY].set))
		badflag("mount-none", "flag `--mount-none` conflicts with `%s`", opt[FMOUNT].set ? "mount" : "mount-only");
	if (opt[FCPUS].set && opt[FCPUS].n < 0)
		badflag("cpus", "invalid value for number of cpus, must be >= 0");
	if (opt[FSHELLPATH].set && *opt[FSHELLPATH].s != '/')
		badflag("shell", "must be an absolute path, got %s", bq(opt[FSHELLPATH].s));
	if (opt[FVARIANT].set && !*opt[FVARIANT].s)
		badflag("image-variant", "`--image-variant` must not be empty");
	for (i = 0; i < LEN(trial); i++)
		if (opt[trial[i]].set)
			warn("`--%s` is experimental", flags[trial[i]].name);
	w = &opt[FDNS].words;
	for (i = 0; i < w->n; i++)
		bufprintf(&b, "%s%s", i ? " " : "", w->v[i]);
	if (w->n)
		warn("Disabling HostResolver, as custom DNS addresses ([%s]) are specified", b.s);
	w = &opt[FPARAM].words;
	(void)yparse(&d, text, strlen(text));
	for (i = 0; i < w->n; i++) {
		const char *key = keep("%.*s", (int)strcspn(w->v[i], "="), w->v[i]);
		if (strchr(w->v[i], '=') && !yget(d.root ? yget(d.root, "param") : NULL, key))
			badflag("param", "template does not define param %s", bq(key));
	}
	yfree(&d);
	buffree(&b);
}

/* The edits of lima.yaml that flags ask for, in the order of their rows.  The
 * text itself when there are none. */
static const char *
applyflags(const char *text, bool existing)
{
	struct buf b = { 0 };
	const char *why;
	size_t k, n;
	int i;

	if (!editflags())
		return text;
	checkflags(text);
	for (i = 0; i < NFLAG; i++) {
		if (!opt[i].set || !flags[i].expr)
			continue;
		if (existing && (NEWONLY & B(i)) && curcmd->bit != EDIT) {
			warn("`--%s` is not applicable to an existing instance (Hint: create a new instance with `limactl create --%s=%s --name=NAME`)",
			    flags[i].name, flags[i].name, opt[i].s);
			continue;
		}
		n = i == FSET || i == FPARAM ? opt[i].words.n : 1;
		for (k = 0; k < n; k++) {
			b.len = 0;
			bufputs(&b, "");
			if (i == FSET)
				bufputs(&b, opt[i].words.v[k]);
			else if (i == FPARAM)
				itemparam(&b, opt[i].words.v[k]);
			else
				flagexpr(&b, (enum flagid)i);
			if (!(text = xedit(text, b.s, &why)))
				badflag(flags[i].name, "%s", why);
		}
	}
	buffree(&b);
	return text;
}

/* The exit status of a command, whose output has to have arrived. */
static int
flushed(int r)
{
	if (fflush(stdout) < 0 || ferror(stdout))       /* an earlier write may have failed */
		outfailed();
	return r;
}

/* Data goes to a terminal, or is to look so. */
static bool
coloured(void)
{
	static int known = -1;

	if (known < 0)
		known = envor("_LIMA_OUTPUT_IS_TTY", NULL) || isatty(1);
	return known;
}

/* Data on stdout.  In colour: keys, strings, other values of JSON or YAML, by
 * the shape of its tokens; each ends with ESC[0m. */
static void
putdata(const struct buf *data, bool colour)
{
	const char *s = data->s ? data->s : "", *e;
	struct buf b = { 0 };
	bool line = true;
	int sgr;

	if (!colour) {
		fwrite(s, 1, data->len, stdout);
		return;
	}
	for (; *s; s = e) {
		e = s + 1;
		if (*s == '"') {
			while (*e && *e != '"' && *e != '\n')
				e += *e == '\\' && e[1] ? 2 : 1;
			e += *e == '"';
			sgr = *e == ':' ? 36 : 32;
		} else if (strchr(" \n[]{},:", *s)) {
			bufputc(&b, *s);
			line = *s == '\n' || (line && *s == ' ');
			continue;
		} else {
			/* - of a YAML list, its key, else the rest of the line */
			while (*e && !strchr("\n,{}[]\"", *e) && !(*e == ':' && line && strchr(" \n", e[1])))
				e++;
			sgr = line && *e == ':' ? 36 : strchr("0123456789-tfn", *s) ? 33 : 32;
		}
		line = false;
		bufprintf(&b, "\033[%dm%.*s\033[0m", sgr, (int)(e - s), s);
	}
	if (b.s)
		fwrite(b.s, 1, b.len, stdout);
	buffree(&b);
}

/* ---- 30. Editing and prompts -------------------------------------------- */

/* edit, and the questions on a terminal. */

/* The user's editor, run on a copy of a text; what was saved.  A head of
 * comments says what is to be done; it goes again unless it was changed. */
static const char *
edited(const char *text)
{
	static const char *const also[] = { "default", "override" };
	const char *const progs[] = { getenv("VISUAL"), getenv("EDITOR"), "editor", "vim", "vi", "emacs" };
	const char *prog = NULL, *s;
	char *path = keep("%s/lima-edit-XXXXXX.yaml", envor("TMPDIR", "/tmp"));
	struct buf head = { 0 }, b = { 0 };
	char *more, *line;
	size_t i;
	int fd, st;

	for (i = 0; i < LEN(progs) && !prog; i++)
		prog = progs[i] && *progs[i] ? findprog(progs[i]) : NULL;
	if (!prog)
		die("could not detect a text editor binary, try setting $EDITOR");
	bufputs(&head, "# Change what is below, save and leave the editor.\n# A file that is saved empty changes nothing.\n");
	for (i = 0; i < LEN(also); i++) {
		b.len = 0;
		s = keep("%s/_config/%s.yaml", host.limahome, also[i]);
		if (readfile(s, &b, templatemax) < 0 || !b.len)
			continue;
		bufprintf(&head, "#\n# %s, for comparison:\n", s);
		for (more = b.s; (line = strsep(&more, "\n")) && (*line || more);)
			bufprintf(&head, "# %s\n", line);
	}
	bufputs(&head, "\n");
	if ((fd = mkostemps(path, 5, O_CLOEXEC)) < 0)
		die("create %s:", path);
	if (writeall(fd, head.s, head.len) < 0 || writeall(fd, text, strlen(text)) < 0)
		die("write %s:", path);
	close(fd);
	st = runhere((char *[]){ keep("%s", prog), path, NULL });
	b.len = 0;
	if (st == 0 && readfile(path, &b, templatemax) < 0)
		st = -1;
	(void)unlink(path);
	if (st != 0)
		die("%s %s", prog, ended(st));
	s = !b.len ? "" : keep("%s", startswith(b.s, head.s) ? b.s + head.len : b.s);
	buffree(&head);
	buffree(&b);
	return s;
}

/* Is the instance to be started now?  As --start says, or the user at a terminal:
 * yes when nothing is typed. */
static bool
askstart(void)
{
	char line[64];

	if (opt[FSTARTIT].set)
		return opt[FSTARTIT].b;
	if (!opt[FTTY].b || !isatty(0))
		return false;
	fputs("? Do you want to start the instance now? (Y/n) ", stderr);
	fflush(stderr);
	if (!fgets(line, sizeof line, stdin)) {
		if (gotsig)
			die("Interrupted by user");
		return false;
	}
	return strchr("yY\n", *line) != NULL;
}

/* Those of a menu's options that the filter lets through, drawn over the last
 * drawing, in a window that has number cur of them in it.  The cursor
 * stays at the top, and long lines do not wrap.  How many there are; *at:
 * the index of cur. */
static size_t
menudraw(const char *question, const char *const *opts, size_t n, const char *filter, size_t cur, size_t *at)
{
	struct buf b = { 0 };
	struct winsize w;
	size_t i, hits = 0, rows = 8, top, lines = 1;

	if (ioctl(2, TIOCGWINSZ, &w) == 0 && w.ws_row && w.ws_row < rows + 2)
		rows = w.ws_row > 3 ? w.ws_row - 2U : 1;        /* the cursor cannot go above the top */
	top = cur < rows ? 0 : cur - rows + 1;
	bufprintf(&b, "\r\033[J\033[?7l? %s %s  [Use arrows to move, type to filter]\n", question, filter);
	for (i = 0; i < n; i++) {
		if (!strcasestr(opts[i], filter))
			continue;
		if (hits == cur)
			*at = i;
		if (hits >= top && hits < top + rows) {
			bufprintf(&b, "%s%s\n", hits == cur ? "> " : "  ", opts[i]);
			lines++;
		}
		hits++;
	}
	bufprintf(&b, "\033[?7h\033[%zuA", lines);
	(void)writeall(2, b.s, b.len);
	buffree(&b);
	return hits;
}

/* Let the user at the terminal choose one of n options; its index.  Arrows or
 * ^P and ^N move, so does the number of one of less than ten, other characters
 * filter, Enter accepts.  ^C, ^D and a signal end the command. */
static size_t
menu(const char *question, const char *const *opts, size_t n)
{
	struct termios was, raw;
	char filter[32] = "", c = 3;
	size_t len = 0, cur = 0, at = 0, hits;
	int esc = 0;            /* characters of an escape sequence so far, 2: its parameters */

	if (tcgetattr(0, &was) < 0)
		die("terminal:");
	raw = was;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	(void)tcsetattr(0, TCSADRAIN, &raw);
	for (;;) {
		hits = menudraw(question, opts, n, filter, cur, &at);
		if (read(0, &c, 1) != 1)
			c = 3;
		if (c == 3 || c == 4 || (c == '\n' && hits))
			break;
		if (esc == 1) {
			esc = c == '[' || c == 'O' ? 2 : 0;
			continue;
		}
		if (esc == 2) {
			if (strchr("0123456789;", c))
				continue;
			esc = 0;
			c = c == 'A' ? 16 : c == 'B' ? 14 : 0;
		}
		if (c == 27)
			esc = 1;
		else if (c == 16 && hits)
			cur = (cur + hits - 1) % hits;
		else if (c == 14 && hits)
			cur = (cur + 1) % hits;
		else if (n < 10 && !len && c > '0' && c <= '0' + (int)n)
			cur = (size_t)(c - '1');
		else if ((c == 127 || c == 8) && len)
			filter[--len] = '\0', cur = 0;
		else if (c >= ' ' && c < 127 && len + 1 < sizeof filter)
			filter[len++] = c, filter[len] = '\0', cur = 0;
	}
	(void)tcsetattr(0, TCSADRAIN, &was);
	fprintf(stderr, "\r\033[J? %s %s\n", question, c == '\n' ? opts[at] : "");
	if (c != '\n')
		die("Interrupted by user");
	return at;
}

/* The text of a template that the user chooses. */
static const char *
choosetemplate(void)
{
	struct template t;
	struct templates l = listtemplates(false);
	const char **names = yalloc(&perm, (l.n + 1) * sizeof *names);
	size_t i;

	if (!l.n)
		die("there are no templates");
	for (i = 0; i < l.n; i++)
		names[i] = l.v[i].name;
	t = readtemplate(keep("template:%s", names[menu("Choose a template", names, l.n)]));
	return templateembed(&t, EMBALL);
}

/* The text of a new instance, made of a template's by flags, and on a terminal
 * by the user. */
static const char *
reviewed(const char *name, const char *text)
{
	static const char *const opts[] = {
		"Proceed with the current configuration",
		"Open an editor to review or modify the current configuration",
		"Choose another template (docker, podman, archlinux, fedora, ...)",
		"Exit",
	};

	if (!opt[FTTY].b || !isatty(0)) {
		info("Terminal is not available, proceeding without opening an editor");
		return applyflags(text, false);
	}
	for (;;) {
		const char *now = applyflags(text, false);
		switch (menu(keep("Creating an instance %s", bq(name)), opts, LEN(opts))) {
		case 0:
			return now;
		case 1:
			now = edited(now);
			if (!now[strspn(now, " \t\r\n")])
				die("Aborting, as requested by saving the file with empty content");
			return now;
		case 2:
			text = choosetemplate();
			break;
		default:
			die("Choosing to exit");
		}
	}
}

/* Refuse a text that is no configuration; one that was worked on is kept. */
static _Noreturn void
rejected(const char *text, const char *why, bool save)
{
	if (!save || access(".", W_OK) < 0 || writefile("lima.REJECTED.yaml", text, strlen(text), 0644) < 0)
		die("%s", why);
	die("the YAML is invalid, saved the buffer as `lima.REJECTED.yaml`: %s", why);
}

/* ---- 31. Creating and starting ------------------------------------------ */

/* Remove what a killed create of this name left in the directory top; a live one
 * holds its lock. */
static void
sweep(const char *top, const char *name)
{
	const char *head = keep(".%s.tmp.", name), *path;
	struct dirent *d;
	DIR *dir = opendir(top);
	int fd;

	while (dir && (d = readdir(dir))) {
		if (!startswith(d->d_name, head))
			continue;
		path = keep("%s/%s", top, d->d_name);
		fd = open(path, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX|LOCK_NB) == 0)
			(void)rmtree(path);
		if (fd >= 0)
			close(fd);
	}
	if (dir)
		closedir(dir);
}

/* Make the directory in which an instance or a disk of that name is built.  Its
 * lock, which another one's sweep() respects; before it is held, that may take the
 * directory. */
static int
makescratch(const char *tmp, const char *name)
{
	struct stat st;
	int lock;

	sweep(parentdir(tmp), name);
	for (;;) {
		if (mkdir(tmp, 0700) < 0)
			die("create %s:", tmp);
		lock = lockfile(tmp, O_RDONLY|O_DIRECTORY, name);
		if (lock < 0 && (errno != ENOENT || gotsig))
			die("lock %s:", tmp);
		if (lock >= 0 && fstat(lock, &st) == 0 && st.st_nlink) {
			scratchadd(tmp);
			return lock;
		}
		if (lock >= 0)
			close(lock);
	}
}

/* Make an instance: whole, or not at all.  False when somebody was quicker. */
static bool
createinstance(const char *name, const char *text)
{
	const char *dir = instdir(name), *tmp = keep("%s/.%s.tmp.%ld", host.limahome, name, (long)getpid());
	struct conf c;
	int lock;

	confload(&c, name, text, strlen(text), keep("main file %s", bq(keep("%s/lima.yaml", dir))), true);
	if (c.errs)
		rejected(text, c.errs, opt[FTTY].b);
	checkdriver(&c);
	warnuser(&c);
	userkey();
	lock = makescratch(tmp, name);
	mustwrite(keep("%s/lima.yaml", tmp), text, strlen(text), 0644);
	mustwrite(keep("%s/lima-version", tmp), VERSION, strlen(VERSION), 0444);
	if (writecloudconfig(&c, tmp, pubkeys(&c)) < 0)
		exit(1);
	preparedisk(&c, tmp);
	prepareengine(&c, tmp);
	if (gotsig)
		die("interrupted");
	if (rename(tmp, dir) < 0) {             /* an instance is never an empty directory */
		if (errno != EEXIST && errno != ENOTEMPTY)
			die("rename %s to %s:", tmp, dir);
		(void)rmtree(tmp);
		scratchdrop();
		return false;
	}
	scratchdrop();
	close(lock);
	return true;
}

/* create's refusal of an instance that is there, before anything is read.  A
 * directory that is none of an instance is refused later, by its path. */
static void
needabsent(const char *name)
{
	if (access(keep("%s/lima.yaml", instdir(name)), F_OK) == 0)
		die("instance %s already exists", bq(name));
}

/* What create and start share: find or make the instance.  *made says which. */
static const char *
findorcreate(int argc, char *argv[], bool start, bool *made)
{
	const char *argname = NULL, *name = opt[FNAME].set && *opt[FNAME].s ? opt[FNAME].s : NULL, *e;
	struct template t;
	struct stat st;

	needhome();
	if (name && (e = badname(name)))
		die("%s", e);
	if (argc == 0 || !badname(argv[0])) {
		argname = argc ? argv[0] : name ? name : deftemplate;
		if (argc && name && strcmp(name, argname) != 0)
			die("instance name %s and CLI flag --name=%s cannot be specified together", bq(argname), bq(name));
		name = argname;
		if (start && access(keep("%s/lima.yaml", instdir(name)), F_OK) == 0) {
			*made = false;
			return name;
		}
		if (!start)
			needabsent(name);
		t = readtemplate("template:default");
		if (argc && strcmp(name, deftemplate) != 0) {
			info("Creating an instance %s from template:default (Not from template:%s)", bq(name), name);
			warn("This form is deprecated. Use `limactl create --name=%s template:default` instead", name);
		}
	} else {
		if (strcmp(argv[0], "-") == 0 && !name)
			die("must pass instance name with --name when reading template from stdin");
		if (strcmp(argv[0], "-") == 0 && opt[FTTY].set && opt[FTTY].b)
			die("cannot use --tty=true when reading template from stdin");
		opt[FTTY].b = opt[FTTY].b && strcmp(argv[0], "-") != 0;
		t = readtemplateas(argv[0], name);
		name = t.name;
		if ((e = badname(name)))
			die("%s", e);
		if (!start)
			needabsent(name);
	}
	t.text = templateembed(&t, EMBALL);
	checkpathlen(name);
	if (lstat(instdir(name), &st) == 0)
		die("instance %s already exists (%s)", bq(name), bq(instdir(name)));
	*made = createinstance(name, reviewed(name, t.text));
	if (!*made && (!start || argc))
		die("instance %s already exists (%s)", bq(name), bq(instdir(name)));
	return name;
}

/* --list-templates and --list-drivers print and end. */
static bool
listonly(void)
{
	struct templates l;
	size_t i;

	if (opt[FLISTDRIVERS].b) {
		puts("qemu");
		return true;
	}
	if (!opt[FLISTTEMPLATES].b)
		return false;
	l = listtemplates(false);
	for (i = 0; i < l.n; i++)
		puts(l.v[i].name);
	return true;
}

static int
cmdcreate(int argc, char *argv[])
{
	const char *name;
	bool made;

	if (listonly())
		return 0;
	name = findorcreate(argc, argv, false, &made);
	info("Run `limactl start %s` to start the instance.", name);
	return 0;
}

/* Look at an instance that has to be there and in order. */
static void
needinstance(struct inst *in, const char *name)
{
	if (inspect(in, name) < 0)
		die("%s", in->errs.v[0]);
	if (!in->loaded) {
		error("Instance \"%s\" has configuration errors", name);
		die("instance \"%s\" has configuration errors: %s", name, in->errs.v[0]);
	}
}

/* Take an instance's lock and look at it again: what was seen before it was
 * held may have changed.  The lock; it goes with the process. */
static int
lockinstance(struct inst *in)
{
	int lock = lockfile(in->dir, O_RDONLY|O_DIRECTORY, keep("instance %s", in->name));
	struct stat a, b;

	if (lock < 0 && gotsig)
		die("interrupted");
	if (lock < 0)
		die("lock %s:", in->dir);
	if (fstat(lock, &a) < 0 || stat(in->dir, &b) < 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
		die("instance %s was deleted or renamed meanwhile", bq(in->name));
	(void)inspect(in, in->name);
	return lock;
}

/* Become the host agent; without a terminal its words go to the log files. */
static _Noreturn void
foreground(const struct inst *in)
{
	struct args a = { 0 };

	agentargs(&a, in);
	followopen(in->dir, true, false);
	if (!isatty(0) && (dup2(fol.evout, 1) < 0 || dup2(fol.logout, 2) < 0))
		die("dup2:");
	if (gotsig)
		die("interrupted");
	execv(*a.v, a.v);
	die("run %s:", *a.v);
}

/* Check an edited text as that of the instance name; a disk does not shrink. */
static void
checkedited(const char *name, const char *path, const char *old, const char *text)
{
	struct conf c, was;

	confload(&c, name, text, strlen(text), keep("main file %s", bq(path)), true);
	if (c.errs)
		rejected(text, c.errs, true);
	confload(&was, name, old, strlen(old), path, false);
	if (!was.errs && c.disk < was.disk)
		rejected(text, keep("field `disk`: shrinking the disk (%s --> %s) is not supported", printsize(was.disk), printsize(c.disk)), true);
}

static const char *
filetext(const char *path)
{
	struct buf b = { 0 };

	if (readfile(path = absolutefrom(path), &b, templatemax) < 0)
		die("open %s:", path);
	return bufkeep(&b);
}

/* The text of lima.yaml in dir after the edits that flags ask for, checked as
 * that of the instance name.  The text as it was when there are none. */
static const char *
editedtext(const char *name, const char *dir, bool *changed)
{
	const char *path = keep("%s/lima.yaml", dir), *old = filetext(path), *text = applyflags(old, true);

	if ((*changed = strcmp(text, old) != 0))
		checkedited(name, path, old, text);
	return text;
}

/* Apply the flags to an instance's lima.yaml, under its lock; stopped: unless its
 * VM runs.  True when that changed it. */
static bool
editinstance(struct inst *in, bool stopped)
{
	bool changed;
	const char *text;
	int lock;

	if (!editflags())
		return false;
	lock = lockinstance(in);
	if (stopped && (in->agent || in->driver)) {
		warn("The VM of %s runs: flags that change its configuration are not applied", bq(in->name));
		close(lock);
		return false;
	}
	text = editedtext(in->name, in->dir, &changed);
	if (changed)
		mustwrite(keep("%s/lima.yaml", in->dir), text, strlen(text), 0644);
	close(lock);
	return changed;
}

static int
cmdstart(int argc, char *argv[])
{
	struct inst in;
	const char *name;
	bool made;

	if (listonly())
		return 0;
	name = findorcreate(argc, argv, true, &made);
	if (!made)
		info("Using the existing instance %s", bq(name));
	needinstance(&in, name);
	if (in.agent && in.driver && in.state == SRUNNING) {
		followopen(in.dir, false, false);
		fol.quiet = true;
		while (followread(fol.ev, &fol.evline, followevent))
			;
		fol.quiet = false;
		if (fol.running) {
			if (editflags())
				warn("The instance %s is running: flags that change its configuration are not applied", bq(name));
			info("The instance %s is already running. Run `%s` to open the shell.", bq(name),
			    strcmp(name, "default") ? keep("limactl shell %s", name) : "lima");
			return 0;
		}
		fol.port = 0;
	} else if (!made && editinstance(&in, true))
		needinstance(&in, name);
	userkey();
	if (in.driver && !in.agent)
		warn("The host agent of %s is gone; adopting its VM", bq(name));
	if (opt[FFOREGROUND].b) {
		(void)lockinstance(&in);        /* close-on-exec: held until we are the agent */
		if (in.agent)
			die("the instance %s has a host agent already", bq(name));
		if (!in.driver)
			prepare(&in);
		foreground(&in);
	}
	startinstance(&in, opt[FTIMEOUTFLAG].n > 0 ? opt[FTIMEOUTFLAG].n : startwait);
	ready(&in);
	return 0;
}

/* Remove *.pid *.sock *.tmp of an instance whose processes are dead. */
static void
rmtemps(const char *dir)
{
	struct dirent *d;
	DIR *dp = opendir(dir);

	info("Removing *.pid *.sock *.tmp under %s", bq(dir));
	while (dp && (d = readdir(dp)))
		if (endswith(d->d_name, ".pid") || endswith(d->d_name, ".sock") || endswith(d->d_name, ".tmp") || strcmp(d->d_name, "ha.qmp") == 0) {
			info("Removing %s", bq(keep("%s/%s", dir, d->d_name)));
			(void)unlinkat(dirfd(dp), d->d_name, 0);
		}
	if (dp)
		closedir(dp);
}

/* Kill the holder of a pid file's lock for good and wait until it is gone. */
static void
killwait(const char *path, pid_t pid)
{
	struct pollfd p = { .events = POLLIN };

	if ((p.fd = holderpidfd(path, pid)) < 0)
		return;
	(void)pidfdkill(p.fd, SIGKILL);
	(void)poll(&p, 1, 10000);
	close(p.fd);
}

/* QMP quit through the user's monitor: QEMU flushes its disks, SIGKILL does not. */
static void
quitqemu(const char *dir, pid_t pid)
{
	static const char cmds[] = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
	struct pollfd p = { .events = POLLIN };
	int fd = connectunix(keep("%s/qmp.sock", dir), SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (send(fd, cmds, sizeof cmds - 1, MSG_NOSIGNAL) > 0 && (p.fd = pidfdopen(pid)) >= 0) {
		(void)poll(&p, 1, 3000);
		close(p.fd);
	}
	close(fd);
}

/* End an instance's processes without asking the guest.  The caller holds the
 * directory's lock and has inspected the instance under it. */
static void
stopforced(const struct inst *in)
{
	const char *hapid = keep("%s/ha.pid", in->dir), *qemupid = keep("%s/qemu.pid", in->dir);
	pid_t master = socketowner(keep("%s/ssh.sock", in->dir));
	int fd = ismaster(master, keep("%s/ssh.config", in->dir)) ? pidfdopen(master) : -1;

	/* the agent first, so that it does not act on what follows */
	if (in->agent)
		killwait(hapid, in->agent);
	if (in->driver) {
		info("Sending SIGKILL to the qemu driver process %ld", (long)in->driver);
		quitqemu(in->dir, in->driver);
		killwait(qemupid, in->driver);
	} else
		info("The qemu driver process seems already stopped");
	if (in->agent)
		info("Sending SIGKILL to the host agent process %ld", (long)in->agent);
	else
		info("The host agent process seems already stopped");
	/* it ends with its connection, unless it is stopped; a user's own ssh is let be */
	if (fd >= 0) {
		(void)pidfdkill(fd, SIGKILL);
		close(fd);
	}
	if (lockholder(qemupid) || lockholder(hapid))
		die("the processes of instance %s do not end", bq(in->name));
	if (in->loaded) {               /* else there may be half of a configuration */
		netclean(&in->conf);
		diskrelease(&in->conf);
		copydrop(&in->conf);
	}
	rmtemps(in->dir);
}

/* Shut an instance down in order: its agent is asked to. */
static void
stopgraceful(struct inst *in)
{
	const char *name = in->name;
	pid_t agent;
	int pidfd, lock;

	if (in->agent < 0 || in->driver < 0)
		die("the instance %s runs in another container that shares %s; stop it there", bq(name), host.limahome);
	if (!in->agent && !in->driver)
		die("expected status `Running`, got `%s` (maybe use `limactl stop -f`?)", in->loaded ? "Stopped" : "");
	if ((agent = in->agent)) {
		followopen(in->dir, false, true);
		if ((pidfd = holderpidfd(keep("%s/ha.pid", in->dir), agent)) < 0)
			die("watch process %ld:", (long)agent);
	} else {
		/* only QEMU is left: a new agent adopts it, to end it in order */
		lock = lockinstance(in);
		followopen(in->dir, true, false);
		pidfd = launchagent(in);
		awaitagent(in->dir, pidfd, powerwait);
		close(lock);
		if (!(agent = lockholder(keep("%s/ha.pid", in->dir)))) {
			showlogs(in->dir);
			die("no host agent could be started to stop %s in order (maybe use `limactl stop -f %s`?)", bq(name), name);
		}
	}
	info("Sending SIGINT to hostagent process %ld", (long)agent);
	if (pidfdkill(pidfd, SIGINT) < 0 && errno != ESRCH)
		die("signal process %ld:", (long)agent);
	info("Waiting for the host agent and the driver processes to shut down");
	fol.quiet = true;
	switch (follow(in->dir, pidfd, true, powerwait + 2 * quitwait)) {
	case FEXITED:
		if (lockholder(keep("%s/qemu.pid", in->dir)))
			die("the host agent has ended, but QEMU runs on (maybe use `limactl stop -f %s`?)", name);
		break;
	case FINTERRUPTED:
		die("interrupted; the instance %s goes on shutting down", bq(name));
	default:
		die("did not receive an event with the `exiting` status (maybe use `limactl stop -f %s`?)", name);
	}
	close(pidfd);
	followclose();
	info("Waiting for the instance to shut down");
	info("The instance %s has shut down", name);
}

static int
cmdstop(int argc, char *argv[])
{
	struct inst in;

	if (inspect(&in, argc ? argv[0] : deftemplate) < 0)
		die("%s", in.errs.v[0]);
	if (opt[FFORCE].b) {
		(void)lockinstance(&in);
		stopforced(&in);
	} else
		stopgraceful(&in);
	return 0;
}

/* Start an instance that exists and say so; it is looked at again. */
static void
startnow(const char *name)
{
	struct inst in;

	needinstance(&in, name);
	userkey();
	startinstance(&in, startwait);
	ready(&in);
}

static int
cmdrestart(int argc, char *argv[])
{
	const char *name = argc ? argv[0] : deftemplate;
	struct inst in;
	int lock;

	if (inspect(&in, name) < 0)
		die("%s", in.errs.v[0]);
	if (editinstance(&in, false))
		info("Instance %s configuration edited", bq(name));
	if (opt[FFORCE].b) {
		info("Restarting the instance forcibly");
		lock = lockinstance(&in);
		stopforced(&in);
		close(lock);
	} else if (!in.agent && !in.driver)
		warn("The instance is not running, continuing with the restart");
	else
		stopgraceful(&in);
	startnow(name);
	return 0;
}

/* Change lima.yaml of a stopped instance, or a file, by flags or by hand. */
static int
cmdedit(int argc, char *argv[])
{
	const char *name = argc ? argv[0] : deftemplate, *path, *old, *text;
	bool isinst = !badname(name);
	struct inst in = { 0 };
	int lock = -1;

	if (isinst && inspect(&in, name) < 0)
		die("instance %s not found", bq(name));
	if (isinst && !in.agent && !in.driver)
		lock = lockinstance(&in);
	if (in.agent || in.driver)
		die("cannot edit a running instance");
	path = isinst ? keep("%s/lima.yaml", in.dir) : name;
	if (!*path)
		die("%s", badname(name));
	old = filetext(path);
	text = editflags() ? applyflags(old, true) : opt[FTTY].b && isatty(0) ? edited(old) : old;
	if (!text[strspn(text, " \t\r\n")]) {
		info("Aborting, as requested by saving the file with empty content");
		return 0;
	}
	if (strcmp(text, old) == 0)
		info("Aborting, no changes made to the instance");
	else {
		checkedited(isinst ? name : "edited", path, old, text);
		mustwrite(path, text, strlen(text), 0644);
		if (isinst)
			info("Instance %s configuration edited", bq(name));
	}
	if (lock >= 0)
		close(lock);
	if (isinst && askstart())
		startnow(name);
	return 0;
}

/* The systemd user unit that starts an instance at login. */
static const char *
unitpath(const char *name)
{
	const char *x = getenv("XDG_CONFIG_HOME");

	return keep("%s/systemd/user/lima-vm@%s.service",
	    x && *x == '/' ? x : keep("%s/.config", host.home ? host.home : ""), name);
}

static void
systemctl(const char *verb, const char *name)
{
	char *argv[] = { keep("systemctl"), keep("--user"), keep("%s", verb), keep("lima-vm@%s.service", name), NULL };
	int st = runto(argv, NULL, NULL, -1);

	if (st != 0)
		warn("systemctl --user %s lima-vm@%s.service %s", verb, name, ended(st));
}

/* Remove an instance's unit.  False when there is none. */
static bool
dropunit(const char *name)
{
	const char *path = unitpath(name);

	if (access(path, F_OK) < 0)
		return false;
	systemctl("disable", name);
	if (unlink(path) < 0)
		die("remove %s:", path);
	return true;
}

/* Write the unit of an instance.  False when it was there already. */
static bool
addunit(const char *name)
{
	/* a guest may take its time to shut down */
	const char *path = unitpath(name), *text = keep(
	    "[Unit]\nDescription=Virtual machine %%i of limactl\n\n[Service]\nType=simple\n"
	    "ExecStart=%s start %%i --foreground\nEnvironment=%s\nWorkingDirectory=%%h\n"
	    "TimeoutStopSec=%lld\nRestart=on-failure\n\n[Install]\nWantedBy=default.target\n",
	    sshpath(selfpath()), sshpath(keep("LIMA_HOME=%s", host.limahome)), (powerwait + 2 * quitwait) / 1000);
	bool new = access(path, F_OK) < 0;

	if (mkdirs(parentdir(path), 0700) < 0)
		die("create the directory of %s:", path);
	mustwrite(path, text, strlen(text), 0644);
	systemctl("enable", name);
	return new;
}

static int
cmddelete(int argc, char *argv[])
{
	const char *bad = NULL, *tmp;
	struct inst in;
	int i, lock;

	for (i = 0; i < argc; i++) {
		const char *e = badname(argv[i]);
		if (e)
			die("%s", e);
		sweep(host.limahome, argv[i]);
		if (access(instdir(argv[i]), F_OK) < 0) {
			warn("Ignoring non-existent instance %s", bq(argv[i]));
			continue;
		}
		if (inspect(&in, argv[i]) < 0) {
			bad = keep("instance %s directory %s exists but its `lima.yaml` could not be read; it was NOT deleted, "
			    "in case it is currently being cloned into. If no `limactl` operation is using it, remove it manually",
			    bq(argv[i]), bq(in.dir));
			continue;
		}
		lock = lockinstance(&in);
		if (in.protected)
			die("failed to delete instance %s: instance is protected to prohibit accidental removal (Hint: use `limactl unprotect`)", bq(argv[i]));
		if (!opt[FFORCE].b && in.state != SSTOPPED)
			die("failed to delete instance %s: expected status `Stopped`, got `%s`%s", bq(argv[i]), statename[in.state],
			    in.agent || in.driver ? "" : " (its configuration has errors; maybe use `limactl delete -f`?)");
		stopforced(&in);
		/* a name that sweep() knows, for half of an instance is none */
		tmp = keep("%s/.%s.tmp.%ld", host.limahome, argv[i], (long)getpid());
		if (rename(in.dir, tmp) < 0 || rmtree(tmp) < 0)
			die("remove %s:", in.dir);
		close(lock);
		if (dropunit(argv[i]))
			info("The autostart entry for instance %s has been unregistered", bq(argv[i]));
		info("Deleted %s (%s)", bq(argv[i]), bq(in.dir));
	}
	if (bad)
		die("%s", bad);
	return 0;
}

/* ---- 32. Listing -------------------------------------------------------- */

/* Print an instance through the user's template. */
static void
listtemplate(const struct inst *in, const char *fmt)
{
	struct tt t = { .name = "format", .member = instmember, .listfuncs = true };
	struct yarena a = { 0 };
	struct ydoc d = { 0 };
	const char *s;

	t.root = insttree(&d, in, true);
	s = ttrender(&t, &a, fmt);
	yfree(&d);
	if (!s)
		die("%s%s", t.syntax ? "invalid go template: " : "", t.err);
	puts(s);
	yarenafree(&a);
}

/* The expressions of --yq or --filter as one, each in its own parentheses. */
static const char *
exprof(enum flagid id, const char *head)
{
	const struct args *w = &opt[id].words;
	const char *s = w->n ? "" : NULL;
	size_t i;

	for (i = 0; i < w->n; i++)
		s = keep("%s%s%s(%s\n)", s, i ? " | " : "", head, w->v[i]);
	return w->n == 1 && !*head ? w->v[0] : s;       /* alone: errors name its own columns */
}

/* Does an instance get through --filter?  It sees no fields of the host. */
static bool
listed(const struct inst *in, const char *filter)
{
	struct ydoc d = { 0 };
	struct buf b = { 0 };
	enum instfield f;
	bool hit;

	if (!filter)
		return true;
	d.root = insttree(&d, in, false);
	for (f = IHOSTOS; f < NINSTFIELD; f++)
		ydel(&d, yget(d.root, instfields[f].json));
	xquery(&d, filter, &(struct xlook){ .json = true }, false, &b);
	hit = b.len > 0;
	buffree(&b);
	yfree(&d);
	return hit;
}

/* An instance as JSON or YAML, or what --yq makes of it. */
static void
listdata(const struct inst *in, const char *expr, bool json, bool first)
{
	static struct buf b;            /* kept from one to the next */
	struct ydoc d = { 0 };
	struct xlook how = { .json = json, .raw = true, .indent = json && coloured() ? 4 : 0 };

	if (b.s)
		b.s[b.len = 0] = '\0';
	d.root = insttree(&d, in, false);
	xquery(&d, expr ? expr : ".", &how, true, &b);
	if (!json && !first && b.len)
		puts("---");
	putdata(&b, coloured());
	yfree(&d);
}

/* Rows of cells, columns padded to the widest and four blanks, the last one not. */
static void
printtable(const char *(*cell)[9], size_t rows, size_t cols)
{
	struct buf b = { 0 };
	size_t r, c, len, wide[9] = { 0 };

	for (r = 0; r < rows; r++)
		for (c = 0; c + 1 < cols; c++)
			if ((len = strlen(cell[r][c]) + 4) > wide[c])
				wide[c] = len;
	for (r = 0; r < rows; r++) {
		for (c = 0; c < cols; c++)
			bufprintf(&b, "%-*s", (int)wide[c], cell[r][c]);
		bufputc(&b, '\n');
	}
	fwrite(b.s, 1, b.len, stdout);
	buffree(&b);
}

static void
tablerow(const char *cell[9], const struct inst *in)
{
	const struct conf *c = &in->conf;
	const char *dir = in->dir;

	if (host.home && startswith(dir, host.home) && dir[strlen(host.home)] == '/')
		dir = keep("~%s", dir + strlen(host.home));
	cell[0] = in->name;
	cell[1] = statename[in->state];
	cell[2] = in->loaded ? keep("127.0.0.1:%lld", in->sshport) : ":0";
	cell[3] = in->loaded ? c->vmtype : "";
	cell[4] = in->loaded ? c->arch : "";
	cell[5] = keep("%lld", in->loaded ? c->cpus : 0);
	cell[6] = printsize(in->loaded ? c->memory : 0);
	cell[7] = printsize(in->loaded ? c->disk : 0);
	cell[8] = dir;
}

/* Leave out columns that say the same in all rows, or the directory, where the
 * terminal is too narrow for them.  The number of those left. */
static size_t
hidecolumns(const char *(*cell)[9], size_t rows)
{
	/* one of several units of 8 characters; what else must fit beside those before it */
	static const struct { size_t col, units, after; } hide[] = { { 3, 1, 5 + 7 }, { 4, 1, 5 + 6 }, { 8, 2, 5 + 3 + 2 } };
	struct winsize w;
	size_t cols = 9, shown = 0, i, r, at;

	if (opt[FALLFIELDS].b || ioctl(1, TIOCGWINSZ, &w) < 0 || !w.ws_col)
		return cols;
	for (i = 0; i < LEN(hide); i++) {
		at = hide[i].col - (9 - cols);
		for (r = 2; r < rows && (at == 8 || strcmp(cell[r][at], cell[1][at]) == 0); r++)
			;
		if ((shown + hide[i].after) * 8 <= w.ws_col || (i < 2 && r < rows) ||
		    (i == 1 && rows > 1 && strcmp(cell[1][at], host.arch) != 0)) {
			shown += hide[i].units;
			continue;
		}
		for (r = 0; r < rows; r++)
			memmove(&cell[r][at], &cell[r][at + 1], (cols - at - 1) * sizeof cell[r][0]);
		cols--;
	}
	return cols;
}

/* The fields of an instance that templates can name, by their bytes. */
static void
listfields(void)
{
	const char *name[IHOSTOS];
	size_t i;

	for (i = 0; i < LEN(name); i++)
		name[i] = instfields[i].go;
	qsort(name, LEN(name), sizeof *name, strpcmp);
	for (i = 0; i < LEN(name); i++)
		puts(name[i]);
}

static void
checklistflags(const char *fmt)
{
	bool table = strcmp(fmt, "table") == 0;
	static const enum flagid nofields[] = { FFORMAT, FYQ, FFILTER };
	size_t i;

	if (opt[FJSON].b && opt[FFORMAT].set)
		die("option --json conflicts with option --format");
	for (i = 0; opt[FLISTFIELDS].b && i < LEN(nofields); i++)
		if (opt[nofields[i]].set)
			die("option --list-fields conflicts with option --%s", flags[nofields[i]].name);
	if (opt[FYQ].set && (opt[FFORMAT].set || opt[FJSON].b) && strcmp(fmt, "json") != 0 && strcmp(fmt, "yaml") != 0)
		die("option --yq only works with --format json or yaml");
	if (opt[FQUIET].b && !table && !(opt[FYQ].set && !opt[FFORMAT].set && !opt[FJSON].b))
		die("option --quiet can only be used with '--format table'");
}

static int
cmdlist(int argc, char *argv[])
{
	static const char *const head[9] = { "NAME", "STATUS", "SSH", "VMTYPE", "ARCH", "CPUS", "MEMORY", "DISK", "DIR" };
	const char *fmt = opt[FFORMAT].set ? opt[FFORMAT].s : opt[FJSON].b || opt[FYQ].set ? "json" : "table";
	const char *expr = exprof(FYQ, ""), *filter = exprof(FFILTER, "select");
	struct strs all = allinstances(), want = all;
	const char *(*cell)[9];
	struct inst in;
	bool unmatched = false, noyaml, table = strcmp(fmt, "table") == 0, first = true;
	size_t i, k, rows = 0;

	checklistflags(fmt);
	if (opt[FLISTFIELDS].b) {
		listfields();
		return 0;
	}
	if (argc) {
		want = (struct strs){ yalloc(&perm, (size_t)argc * sizeof *want.v), 0 };
		for (i = 0; i < (size_t)argc; i++) {
			if (oneof(argv[i], all.v, all.n))
				want.v[want.n++] = argv[i];
			else {
				warn("No instance matching %s found.", argv[i]);
				unmatched = true;
			}
		}
	} else if (!all.n && !opt[FQUIET].b) {
		warn("No instance found. Run `limactl create` to create an instance.");
		return 0;
	}
	cell = yalloc(&perm, (want.n + 1) * sizeof *cell);
	memcpy(cell[rows++], head, sizeof head);
	for (i = 0; i < want.n; i++) {
		if (opt[FQUIET].b && !expr && !filter) {
			puts(want.v[i]);
			continue;
		}
		noyaml = inspect(&in, want.v[i]) < 0;
		if (!listed(&in, filter))
			continue;
		if (in.errs.n && !opt[FQUIET].b) {
			struct buf b = { 0 };
			for (k = 0; k < in.errs.n; k++)
				bufprintf(&b, "%s%s", k ? " " : "[", in.errs.v[k]);
			bufputc(&b, ']');
			struct field f[] = { { "errors", keep("%s", b.s) }, { NULL, NULL } };
			logline(WARN, f, keep("instance %s has errors", bq(in.name)));
			buffree(&b);
			if (noyaml)
				warn("The directory %s does not look like a valid Lima directory: %s", bq(host.limahome), in.errs.v[0]);
		}
		if (opt[FQUIET].b && (!expr || listed(&in, expr)))
			puts(want.v[i]);
		else if (opt[FQUIET].b)
			continue;
		else if (table)
			tablerow(cell[rows++], &in);
		else if (strcmp(fmt, "json") == 0 || strcmp(fmt, "yaml") == 0)
			listdata(&in, expr, *fmt == 'j', first);
		else
			listtemplate(&in, fmt);
		first = false;
	}
	if (table && !opt[FQUIET].b)
		printtable(cell, rows, hidecolumns(cell, rows));
	(void)flushed(0);
	if (unmatched)
		die("unmatched instances");
	return 0;
}

/* ---- 33. shell and copy ------------------------------------------------- */

/* Variables of the host that --preserve-env keeps back; * is any run. */
static const char shellenvblock[] = "BASH*,DISPLAY,DYLD_*,EUID,FPATH,GID,GROUP,HOME,HOSTNAME,LD_*,LOGNAME,OLDPWD,PATH,"
    "PWD,SHELL,SHLVL,SSH_*,TERM,TERMINFO,TMPDIR,UID,USER,XAUTHORITY,XDG_*,ZDOTDIR,ZSH*,_*";

/* The patterns of a variable, cut at commas and checked. */
static void
envpatterns(struct args *a, const char *list, const char *var)
{
	char *s = keep("%s", list), *w;
	size_t n;

	while ((w = strsep(&s, ","))) {
		w = chomp(w + strspn(w, " \t"));
		n = strspn(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_*");
		if (w[n])
			die("Invalid %s pattern: pattern %s contains invalid character `%c` at position %zu", var, bq(w), w[n], n);
		if (*w)
			arg(a, "%s", w);
	}
}

/* LIMA_SHELLENV_BLOCK, which with a + goes on top of the default list. */
static void
envblock(struct args *a)
{
	const char *var = "LIMA_SHELLENV_BLOCK", *s = getenv(var);

	if (!s || !*s || *s == '+')
		envpatterns(a, shellenvblock, var);
	if (s && *s)
		envpatterns(a, s + (*s == '+'), var);
}

static bool
envlisted(const struct args *a, const char *name)
{
	size_t i;

	for (i = 0; i < a->n && !xglob(a->v[i], name); i++)
		;
	return i < a->n;
}

/* env K=V ... of what --preserve-env passes on. */
static void
hostenv(struct buf *b)
{
	struct args block = { 0 }, allow = { 0 };
	const char *list = getenv("LIMA_SHELLENV_ALLOW"), *eq, *name;
	bool any = false;
	char **e;

	envblock(&block);
	envpatterns(&allow, list ? list : "", "LIMA_SHELLENV_ALLOW");
	for (e = environ; *e; e++) {
		/* a name that is none, as of an exported function, is nothing for env(1) */
		if (!(eq = strchr(*e, '=')) || eq == *e ||
		    *e + wordlen(*e) != eq)
			continue;
		name = keep("%.*s", (int)(eq - *e), *e);
		if (envlisted(&block, name) && !envlisted(&allow, name))
			continue;
		bufprintf(b, "%s%s=", any ? "" : "env ", name);
		bufquote(b, eq + 1);
		bufputc(b, ' ');
		any = true;
	}
	argsfree(&block);
	argsfree(&allow);
}

/* The current directory as the user's shell names it. */
static const char *
hostcwd(void)
{
	const char *pwd = getenv("PWD");
	struct stat a, b;

	if (pwd && *pwd == '/' && stat(pwd, &a) == 0 && stat(".", &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev)
		return pwd;
	return resolved(".");
}

/* Where the guest has a directory of the host, or NULL; the innermost mount
 * counts.  Links are resolved on both sides. */
static const char *
guestdir(const struct conf *c, const char *dir)
{
	const struct mount *m = c->mounts.v;
	const char *best = NULL, *real = dir ? resolved(dir) : NULL, *loc, *rest;
	size_t i, longest = 0;

	for (i = 0; real && i < c->mounts.n; i++, m++) {
		if (!(loc = resolved(m->location)))
			continue;
		if ((rest = below(real, loc)) && (!best || strlen(loc) > longest)) {
			longest = strlen(loc);
			/* in the user's words when they lead there */
			best = startswith(dir, m->location) && strcmp(m->location, m->mountpoint) == 0 ? dir : keep("%s%s", m->mountpoint, rest);
		}
	}
	return best;
}

/* Stay where the host's user is, when the guest has that directory. */
static void
cdhost(struct buf *b, const struct inst *in)
{
	const char *const dirs[] = { guestdir(&in->conf, hostcwd()), guestdir(&in->conf, host.home) };
	size_t i, n = b->len;

	for (i = 0; i < LEN(dirs); i++)
		if (dirs[i]) {
			bufputs(b, b->len > n ? " || cd " : "cd ");
			bufquote(b, dirs[i]);
		}
	if (b->len == n)
		bufputs(b, "false");    /* stay in the guest's home */
}

/* The script word ssh gets (spec/cli.md 9.4.2).  syncdir: the guest's copy of
 * the host's directory, to run in. */
static const char *
shellscript(const struct inst *in, const char *syncdir, int argc, char *argv[])
{
	struct buf b = { 0 }, join = { 0 };
	const char *eq;
	bool assign = true;
	int i;

	if (syncdir) {
		bufputs(&b, "cd ");
		bufquote(&b, syncdir);
	} else if (opt[FWORKDIR].set && *opt[FWORKDIR].s) {
		bufputs(&b, "cd ");
		bufquote(&b, opt[FWORKDIR].s);
		bufputs(&b, " || exit 1");
	} else
		cdhost(&b, in);
	bufputs(&b, " ; exec ");
	if (opt[FPRESERVEENV].b)
		hostenv(&b);
	bufquote(&b, opt[FSHELL].set && *opt[FSHELL].s ? opt[FSHELL].s : in->conf.shell);
	bufputs(&b, " -l");
	for (i = 0; i < argc; i++) {
		if (i)
			bufputc(&join, ' ');
		assign = assign && (eq = strchr(argv[i], '='));
		if (assign) {
			bufadd(&join, argv[i], (size_t)(eq - argv[i]) + 1);
			bufquote(&join, eq + 1);
		} else
			bufquote(&join, argv[i]);
	}
	if (argc) {
		bufputs(&b, " -c ");
		bufquote(&b, join.s);
	}
	buffree(&join);
	return bufkeep(&b);
}

/* The options of ssh.config as words, with a master used but never made. */
static void
configoptions(struct args *a, const char *dir, bool master)
{
	struct buf b = { 0 };
	char *p, *line, *val;

	if (readfile(keep("%s/ssh.config", dir), &b, 65536) < 0)
		die("read %s/ssh.config:", dir);
	for (p = b.s; (line = strsep(&p, "\n")); ) {
		if (*line != ' ' || !(val = strchr(line += 2, ' ')) || startswith(line, "Hostname ") || startswith(line, "Port "))
			continue;
		*val++ = '\0';
		if (!master && startswith(line, "Control"))
			continue;
		argopt(a, "-o", "%s=%s", line, strcmp(line, "ControlMaster") == 0 ? "no" : val);
	}
	buffree(&b);
}

/* Words with a blank between them. */
static const char *
joined(int argc, char *argv[])
{
	const char *s = argc ? argv[0] : "";
	int i;

	for (i = 1; i < argc; i++)
		s = keep("%s %s", s, argv[i]);
	return s;
}

/* While a guest boots, a connection would hang: wait for the agent's ssh master.
 * False when there is none to be had; a lone QEMU may still let us in. */
static bool
awaitmaster(const struct inst *in)
{
	const char *sock = keep("%s/ssh.sock", in->dir);
	long long end = now() + startwait, left;
	char chunk[4096];
	struct pollfd p[2] = { { .fd = -1, .events = POLLIN }, { .fd = -1, .events = POLLIN } };

	if (socketowner(sock))
		return true;
	if (!in->agent)
		return false;
	p[0].fd = inotify_init1(IN_CLOEXEC|IN_NONBLOCK);
	p[1].fd = pidfdopen(in->agent);
	if (p[0].fd >= 0 && p[1].fd >= 0 && inotify_add_watch(p[0].fd, in->dir, IN_CREATE) >= 0) {
		info("Waiting for ssh of the instance %s", bq(in->name));
		while (!socketowner(sock) && !gotsig && !p[1].revents && (left = end - now()) > 0) {
			(void)poll(p, 2, (int)left);
			while (read(p[0].fd, chunk, sizeof chunk) > 0)
				;
		}
	}
	close(p[0].fd);
	close(p[1].fd);
	if (gotsig)
		die("interrupted");
	return socketowner(sock) != 0;
}

/* The words of $SSH, or ssh. */
static void
sshprogram(struct args *a)
{
	const char *s = envor("SSH", NULL);

	if (s && !shellwords(a, s)) {
		warn("SSH is %s, in which a quote is not closed; using ssh", bq(s));
		argsfree(a);
	}
	if (!a->n)
		arg(a, "ssh");
}

/* An instance that ssh can reach, or the end of the command. */
static void
needrunning(struct inst *in, const char *name)
{
	if (badname(name) || (inspect(in, name) < 0 && errno == ENOENT))
		die("instance %s does not exist, run `limactl create %s` to create a new instance", bq(name), name);
	if (!in->loaded)
		die("instance \"%s\" has configuration errors: %s", name, in->errs.v[0]);
	if (in->state == SSTOPPED || !in->driver)
		die("instance %s is stopped, run `limactl start %s` to start the instance", bq(name), name);
}

/* End as another program, whose exit status is then ours. */
static _Noreturn void
become(struct args *a, const char *package)
{
	catchsignals(SIG_DFL);
	signal(SIGPIPE, SIG_DFL);       /* what we ignore stays ignored across exec */
	execvp(a->v[0], a->v);
	die("%s: cannot be run; install %s:", a->v[0], package);
}

/* ssh with an instance's ssh.config; a master is used and never made. */
static void
sshconfigargs(struct args *a, const struct inst *in)
{
	argopt(a, "-F", "%s/ssh.config", in->dir);
	argopt(a, "-o", awaitmaster(in) ? "ControlMaster=no" : "ControlPath=none");
}

/* Run a command in the guest, nothing shown but, with err -1, its errors;
 * the wait status. */
static int
guestquiet(const struct inst *in, const char *words, int err)
{
	struct args a = { 0 };
	int st;

	sshprogram(&a);
	sshconfigargs(&a, in);
	argwords(&a, "-o LogLevel=ERROR");
	arg(&a, "%s", guesthostname(in->name));
	arg(&a, "%s", words);
	st = runto(a.v, NULL, NULL, err);
	argsfree(&a);
	return st;
}

/* What copy is given: a path, of the host or (in) of an instance. */
struct place {
	const struct inst *in;
	char *path;
};

/* Does rsync work here and in each guest?  True, or whose it is that fails. */
static bool
haversync(const struct place *w, int n, bool *guests)
{
	int i, k;

	*guests = true;
	if (!findprog("rsync"))
		return false;
	for (i = 0; i < n && *guests; i++) {
		for (k = 0; k < i && w[k].in != w[i].in; k++)
			;
		if (w[i].in && k == i)
			*guests = guestquiet(w[i].in, "command -v rsync", NOFD) == 0;
	}
	return *guests;
}

/* rsync splits its -e at blanks and knows quotes, doubled inside quotes. */
static const char *
rsyncshell(const struct inst *in)
{
	struct args a = { 0 };
	struct buf b = { 0 };
	const char *p;
	size_t i;

	sshprogram(&a);
	sshconfigargs(&a, in);
	for (i = 0; i < a.n; i++) {
		bufputs(&b, i ? " '" : "'");
		for (p = a.v[i]; *p; p++)
			bufprintf(&b, *p == '\'' ? "''" : "%c", *p);
		bufputc(&b, '\'');
	}
	argsfree(&a);
	return bufkeep(&b);
}

/* Before 3.2.4 the remote shell reads rsync's paths. */
static bool
rsyncisold(void)
{
	char *argv[] = { keep("rsync"), keep("--version"), NULL };
	struct buf b = { 0 };
	long long v[3];
	const char *p;
	bool old;

	old = runto(argv, NULL, &b, NOFD) == 0 && (p = strstr(b.s, "version ")) && dotted(p + 8, 3, v, NULL) == 3 &&
	    v[0] * 10000 + v[1] * 100 + v[2] < 30204;
	buffree(&b);
	return old;
}

/* A path as an rsync word: wildcards and ~ keep their meaning in the guest. */
static const char *
rsyncword(const struct place *w)
{
	struct buf b = { 0 };
	const char *p;

	if (!w->in)
		return w->path;
	bufprintf(&b, "%s:", guesthostname(w->in->name));
	if (!rsyncisold())
		bufputs(&b, w->path);
	else
		for (p = w->path; *p; p++) {
			if (strchr(" \t\"'\\$`&;|<>()#!{}", *p))
				bufputc(&b, '\\');
			bufputc(&b, *p);
		}
	return bufkeep(&b);
}

static void
cutslash(char *path)
{
	size_t n = strlen(path);

	if (n > 1 && path[n - 1] == '/')
		path[n - 1] = '\0';
}

/* Make `rsync -r` do what scp does, more or less (spec/cli.md 9.5). */
static void
rsyncslashes(struct place *w, int n)
{
	int i, k;

	for (i = 0; i < n; i++)
		if (!endswith(w[i].path, "/"))
			w[i].path = keep("%s/", *w[i].path ? w[i].path : ".");
		else if (!w[i].in)
			cutslash(w[i].path);
		else
			for (k = 0; k < n; k++)
				if (k != i)
					cutslash(w[k].path);
}

/* Several instances in one ssh configuration, for scp; removed by the caller. */
static const char *
joinedconfig(const struct place *w, int n)
{
	struct buf b = { 0 };
	const char *path = NULL;
	int i, k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < i && w[k].in != w[i].in; k++)
			;
		if (!w[i].in || k < i)
			continue;
		(void)awaitmaster(w[i].in);
		if (readfile(keep("%s/ssh.config", w[i].in->dir), &b, 1 << 20) < 0)
			die("read %s/ssh.config:", w[i].in->dir);
		path = keep("%s/copy.%ld.tmp", w[i].in->dir, (long)getpid());
	}
	mustwrite(path, b.s, b.len, 0600);
	buffree(&b);
	return path;
}

/* End the ssh master, whose login has the groups of its time; the host agent
 * makes a new one. */
static void
reconnect(const struct inst *in)
{
	const char *sock = keep("%s/ssh.sock", in->dir);
	struct pollfd p = { .events = POLLIN };
	struct args a = { 0 };
	pid_t master;

	if (access(sock, F_OK) < 0)
		return;
	if (!(master = socketowner(sock))) {
		warn("Removing %s, which nobody listens on", bq(sock));
		(void)unlink(sock);
		return;
	}
	info("Exiting ssh session for the instance %s", bq(in->name));
	p.fd = pidfdopen(master);
	sshprogram(&a);
	argopt(&a, "-F", "%s/ssh.config", in->dir);
	argwords(&a, "-O exit");
	arg(&a, "%s", guesthostname(in->name));
	if (runto(a.v, NULL, NULL, NOFD) != 0)
		warn("The ssh session of %s did not end", bq(in->name));
	if (p.fd >= 0)
		(void)poll(&p, 1, 5000);
	close(p.fd);
	argsfree(&a);
}

/* --sync: what is copied where. */
struct sync {
	const struct inst *in;
	const char *host;       /* absolute */
	const char *guest;
};

/* rsync between the two directories.  more: further flags of it, or NULL.  out:
 * what it says, or NULL. */
static int
syncrun(const struct sync *s, bool back, const char *const *more, struct buf *out)
{
	struct place g = { s->in, keep("%s/", s->guest) };
	struct args a = { 0 };
	int st;

	argwords(&a, more ? "rsync -a -r --delete" : "rsync -a -q -r --delete");
	for (; more && *more; more++)
		arg(&a, "%s", *more);
	if (back)       /* files stay the host user's, also when that is root */
		argwords(&a, "--no-owner --no-group");
	argopt(&a, "-e", "%s", rsyncshell(s->in));
	arg(&a, "--");
	if (back)
		arg(&a, "%s", rsyncword(&g));
	arg(&a, "%s/", s->host);
	if (!back)
		arg(&a, "%s", rsyncword(&g));
	st = runto(a.v, NULL, out, -1);
	argsfree(&a);
	return st;
}

static const char *
guestwords(const char *head, const char *path)
{
	struct buf b = { 0 };

	bufputs(&b, head);
	bufquote(&b, path);
	return bufkeep(&b);
}

/* Check what --sync asks for and copy the directory to the guest. */
static struct sync
syncto(const struct inst *in)
{
	const char *dir = opt[FSYNC].s, *p;
	struct sync s = { .in = in };
	struct place w = { in, NULL };
	struct stat st;
	bool guests;
	int depth = 1;

	if (in->conf.mounts.n)          /* the command could change the host's files before anyone agreed */
		die("cannot use `--sync` when the instance has host mounts configured, start the instance with `--mount-none` to disable mounts");
	if (opt[FWORKDIR].set && *opt[FWORKDIR].s)
		die("cannot use `--workdir` and `--sync` at the same time");
	if (!findprog("rsync"))
		die("rsync is required for `--sync` but not found: install rsync");
	if (!(s.host = strcmp(dir, ".") == 0 ? hostcwd() : resolved(dir)))
		die("open %s:", dir);
	if (stat(s.host, &st) < 0 || !S_ISDIR(st.st_mode))
		die("%s is no directory", bq(s.host));
	for (p = s.host; *p; p++)
		depth += *p == '/';
	if (depth < 4)
		die("expected the depth of the host working directory (%s) to be more than 4, only got %d (Hint: cd to a deeper directory)", bq(s.host), depth);
	if (!haversync(&w, 1, &guests))
		die("rsync not available on guest(s)");
	s.guest = keep("%s%s", in->conf.home, s.host);
	info("Syncing host current directory(%s) to guest instance...", s.host);
	if (guestquiet(in, guestwords("mkdir -p -- ", s.guest), -1) != 0)
		die("cannot make the directory %s in the guest", bq(s.guest));
	if (syncrun(&s, false, NULL, NULL) != 0)
		die("failed to sync %s to the guest", bq(s.host));
	info("Successfully synced host current directory to guest(%s) instance.", s.guest);
	return s;
}

static void
syncback(const struct sync *s)
{
	if (syncrun(s, true, NULL, NULL) != 0)
		die("failed to sync the changes back; they are in %s of the guest", bq(s->guest));
	info("Successfully synced back the changes to host.");
}

/* Show in a pager what the guest changed: rsync's summary, and a diff of the
 * texts, for which what differs is fetched to a scratch directory. */
static void
syncview(const struct sync *s)
{
	const char *pager = getenv("PAGER"), *less = getenv("LESS"), *file, *base;
	char *dir = keep("%s/lima-sync-XXXXXX", envor("TMPDIR", "/tmp"));
	struct sync copy = { s->in, NULL, s->guest };
	struct args a = { 0 };
	struct buf b = { 0 };
	struct job j = { .fd = { NOFD, -1, -1 } };
	pid_t pid;
	size_t i;
	bool r;

	if (!mkdtemp(dir))
		die("create %s:", dir);
	scratchadd(dir);
	copy.host = keep("%s/new", dir);
	file = keep("%s/changes", dir);
	(void)syncrun(s, true, (const char *const[]){ "--dry-run", "--itemize-changes", "--stats", "-h", NULL }, &b);
	if (mkdir(copy.host, 0700) < 0 || (j.fd[1] = open(file, O_WRONLY|O_CREAT|O_CLOEXEC|O_APPEND, 0600)) < 0 || writeall(j.fd[1], b.s ? b.s : "", b.len) < 0)
		die("write %s:", file);
	if (syncrun(&copy, true, (const char *const[]){ "-q", keep("--copy-dest=%s/", s->host), NULL }, NULL) != 0)
		die("failed to fetch the changes; they are in %s of the guest", bq(s->guest));
	j.argv = (char *[]){ keep("diff"), keep("-ruN"), keep("--color=always"), keep("--"), keep("%s", s->host), keep("%s", copy.host), NULL };
	if ((pid = spawn(&j)) < 0)
		warn("diff:");
	else
		(void)waitchild(pid);
	close(j.fd[1]);
	if (!pager || !*pager || !shellwords(&a, pager) || !a.n)
		argwords(&a, "less -R");
	base = strrchr(a.v[0], '/') ? strrchr(a.v[0], '/') + 1 : a.v[0];
	r = strcmp(base, "less") != 0 || (less && strpbrk(less, "rR"));
	for (i = 1; i < a.n; i++)
		r |= *a.v[i] == '-' && strpbrk(a.v[i], "rR");
	if (!r)
		arg(&a, "-R");
	arg(&a, "%s", file);
	j = (struct job){ .argv = a.v, .fd = { -1, -1, -1 } };
	if ((pid = spawn(&j)) < 0)
		warn("run %s (PAGER names another pager):", a.v[0]);
	else
		(void)waitchild(pid);
	(void)rmtree(dir);
	scratchdrop();
	argsfree(&a);
	buffree(&b);
}

/* May the changes come back?  Asked on a terminal, when there are any. */
static bool
syncaccepted(const struct sync *s)
{
	static const char *const opts[] = { "Yes", "No", "View the changed contents" };
	int added = 0, deleted = 0, modified = 0, metadata = 0;
	struct buf b = { 0 };
	char *p, *l;
	size_t n;

	if (!opt[FTTY].b)
		return true;
	if (syncrun(s, true, (const char *const[]){ "--dry-run", "--itemize-changes", "-h", NULL }, &b) != 0)
		die("failed to look for changes; they are in %s of the guest", bq(s->guest));
	for (p = b.s; p && (l = strsep(&p, "\n")); )
		if (startswith(l, "*deleting"))
			deleted++;
		else if (strlen(l) > 12 && strchr("<>ch.", *l) && !startswith(l, ".d..t......"))
			*(l[2] == '+' ? &added : *l == '.' ? &metadata : &modified) += 1;
	buffree(&b);
	if (!added && !deleted && !modified && !metadata) {
		info("No changes detected");
		return false;
	}
	if (!isatty(0))
		die("there is no terminal to ask on; the changes are in %s of the guest (--yes accepts them unseen)", bq(s->guest));
	do {
		n = menu(keep("\342\232\240\357\270\217 Accept the changes? (added: %d, deleted: %d, modified: %d, metadata: %d)",
		    added, deleted, modified, metadata), opts, LEN(opts));
		if (n == 2)
			syncview(s);
	} while (n == 2);
	if (n)
		info("Skipping syncing back the changes to host.");
	return n == 0;
}

/* After the command: its changes come back, and the guest's copy goes. */
static void
syncend(const struct sync *s)
{
	if (syncaccepted(s))
		syncback(s);
	if (guestquiet(s->in, guestwords("rm -rf -- ", s->guest), -1) != 0)
		warn("cannot remove %s in the guest", bq(s->guest));
}

static int
cmdshell(int argc, char *argv[])
{
	struct args a = { 0 };
	struct sync sy = { .in = NULL };
	struct inst in;
	const char *name;
	int st;

	if (opt[FINSTANCE].set) {
		name = opt[FINSTANCE].s;
	} else {
		if (!argc)
			die("requires instance name as first argument");
		name = *argv++;
		if (--argc && strcmp(*argv, "--") == 0)
			argv++, argc--;
	}
	if (argc && (strcmp(*argv, "create") == 0 || strcmp(*argv, "start") == 0 || strcmp(*argv, "delete") == 0 || strcmp(*argv, "shell") == 0))
		warn("Perhaps you meant `limactl %s`?", joined(argc, argv));
	if (opt[FPRESERVEENV].b) {      /* a bad pattern is told before anything is started */
		struct buf b = { 0 };
		hostenv(&b);
		buffree(&b);
	}
	if (!badname(name) && inspect(&in, name) == 0 && in.state == SSTOPPED && in.loaded && askstart()) {
		userkey();
		startinstance(&in, startwait);
	}
	needrunning(&in, name);
	if (opt[FRECONNECT].b)
		reconnect(&in);
	if (opt[FSYNC].set && *opt[FSYNC].s)
		sy = syncto(&in);
	sshprogram(&a);
	argwords(&a, "-F /dev/null");
	/* the master knows the DISPLAY of the start, and its cookie expires */
	configoptions(&a, in.dir, awaitmaster(&in) && !(in.conf.forwardx11 > 0 && getenv("DISPLAY")));
	if (isatty(1))
		arg(&a, "-t");
	if (getenv("COLORTERM"))
		argwords(&a, "-o SendEnv=COLORTERM");
	argwords(&a, "-o LogLevel=ERROR -p");
	arg(&a, "%lld", portofconfig(in.dir));
	argwords(&a, "127.0.0.1 --");
	arg(&a, "%s", shellscript(&in, sy.guest, argc, argv));
	if (!sy.in)
		become(&a, "openssh-client");
	if ((st = runhere(a.v)) == -1)
		die("%s: cannot be run; install openssh-client:", a.v[0]);
	argsfree(&a);
	if (st == 0)
		syncend(&sy);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 255;
}

/* The words of copy as places.  How many are in guests goes to *remote; the
 * number of instances they name is returned, each instance once. */
static int
copyplaces(struct place *w, int argc, char *argv[], int *remote)
{
	const char *colon, *name;
	struct inst *in;
	int i, k, several = 0;

	for (i = *remote = 0; i < argc; i++) {
		w[i] = (struct place){ NULL, argv[i] };
		if (!(colon = strchr(argv[i], ':')))
			continue;
		name = keep("%.*s", (int)(colon - argv[i]), argv[i]);
		w[i].path = keep("%s", colon + 1);
		for (k = 0; k < i && !(w[k].in && strcmp(w[k].in->name, name) == 0); k++)
			;
		if (k < i) {
			w[i].in = w[k].in;
		} else {
			in = yalloc(&perm, sizeof *in);
			needrunning(in, name);
			w[i].in = in;
			several++;
		}
		(*remote)++;
	}
	return several;
}

static void
copyrsync(struct args *a, struct place *w, int argc, const struct inst *only, bool verbose)
{
	int i;

	argwords(a, verbose ? "rsync -a -v --progress" : "rsync -a -q");
	if (opt[FRECURSIVE].b) {
		arg(a, "-r");
		rsyncslashes(w, argc);
	}
	if (only)
		argopt(a, "-e", "%s", rsyncshell(only));
	arg(a, "--");
	for (i = 0; i < argc; i++)
		arg(a, "%s", rsyncword(&w[i]));
}

/* config: an ssh.config of several instances, or NULL. */
static void
copyscp(struct args *a, struct place *w, int argc, const struct inst *only, const char *config, bool verbose)
{
	int i;

	arg(a, "scp");
	if (config) {
		argopt(a, "-F", "%s", config);
		argwords(a, "-o ControlMaster=no");
	} else if (only)
		sshconfigargs(a, only);
	arg(a, verbose ? "-v" : "-q");
	if (opt[FRECURSIVE].b)
		arg(a, "-r");
	argwords(a, "-3 --");
	for (i = 0; i < argc; i++)
		if (w[i].in)
			arg(a, "%s:%s", guesthostname(w[i].in->name), w[i].path);
		else
			arg(a, "%s", w[i].path);
}

static int
cmdcopy(int argc, char *argv[])
{
	const char *backend = opt[FBACKEND].set ? opt[FBACKEND].s : "auto", *config = NULL;
	struct place *w = yalloc(&perm, (size_t)argc * sizeof *w);
	const struct inst *only = NULL;
	bool verbose = opt[FVERBOSE].b || opt[FDEBUG].b, rsync = strcmp(backend, "rsync") == 0, guests;
	struct args a = { 0 };
	int i, remote, several, st;

	if (!rsync && strcmp(backend, "scp") != 0 && strcmp(backend, "auto") != 0)
		die("invalid backend %s, must be one of: scp, rsync, auto", bq(backend));
	several = copyplaces(w, argc, argv, &remote);
	for (i = 0; i < argc; i++)
		only = w[i].in ? w[i].in : only;
	if (rsync && !haversync(w, argc, &guests)) {
		if (guests)
			die("rsync not found on host; install rsync, or use --backend=scp");
		die("rsync not available on guest(s)");
	}
	if (strcmp(backend, "auto") == 0)
		rsync = remote <= 1 && haversync(w, argc, &guests);
	if (!rsync && !findprog("scp"))
		die("neither rsync nor scp found on host: install openssh-client");
	if (rsync)
		copyrsync(&a, w, argc, only, verbose);
	else
		copyscp(&a, w, argc, only, several > 1 ? config = joinedconfig(w, argc) : NULL, verbose);
	if (!config)
		become(&a, rsync ? "rsync" : "openssh-client");
	st = runhere(a.v);
	(void)unlink(config);
	argsfree(&a);
	return st != -1 && WIFEXITED(st) ? WEXITSTATUS(st) : 255;
}

/* A SOCKS proxy in the background: an ssh with a connection of its own, which
 * ends with the guest. */
static int
cmdtunnel(int argc, char *argv[])
{
	struct args a = { 0 };
	struct inst in;
	long long port = opt[FSOCKSPORT].n;
	int st;

	(void)argc;
	warn("`limactl tunnel` is experimental");
	if (opt[FTUNNELTYPE].set && strcmp(opt[FTUNNELTYPE].s, "socks") != 0)
		die("unknown tunnel type: %s", bq(opt[FTUNNELTYPE].s));
	if (port && (port < 1024 || port > 65535))
		die("invalid socks port %lld", port);
	needrunning(&in, argv[0]);
	if (!port && !(port = freeport(0)))
		die("no free port on 127.0.0.1:");
	(void)awaitmaster(&in);
	sshprogram(&a);
	argwords(&a, "-F /dev/null");
	configoptions(&a, in.dir, false);
	argwords(&a, "-o ExitOnForwardFailure=yes -q -f -N -D");
	arg(&a, "127.0.0.1:%lld", port);
	argopt(&a, "-p", "%lld", portofconfig(in.dir));
	arg(&a, "127.0.0.1");
	st = runto(a.v, NULL, NULL, -1);
	argsfree(&a);
	if (st == -1)
		die("ssh: cannot be run; install openssh-client:");
	if (st)
		return WIFEXITED(st) ? WEXITSTATUS(st) : 255;
	printf("Set `ALL_PROXY=socks5h://127.0.0.1:%lld`, etc.\n"
	    "The instance can be connected from the host as <http://%s.internal> via a web browser.\n",
	    port, guesthostname(in.name));
	return 0;
}

static int
cmdshowssh(int argc, char *argv[])
{
	static const char *const formats[] = { "cmd", "args", "options", "config" };
	const char *fmt = opt[FSHOWFORMAT].set ? opt[FSHOWFORMAT].s : "cmd", *key = keep("%s/_config/user", host.limahome);
	struct args o = { 0 };
	struct buf b = { 0 };
	struct inst in;
	size_t i, f;

	(void)argc;
	if (badname(argv[0]) || (inspect(&in, argv[0]) < 0 && errno == ENOENT))
		die("instance %s does not exist, run `limactl create %s` to create a new instance", bq(argv[0]), argv[0]);
	if (!in.loaded)
		die("instance \"%s\" has configuration errors: %s", in.name, in.errs.v[0]);
	warn("`limactl show-ssh` is deprecated. Instead, use `ssh -F %s/ssh.config %s`.", in.dir, guesthostname(in.name));
	if (access(key, F_OK) < 0)
		die("stat %s: %s", key, errtext(errno));
	for (f = 0; f < LEN(formats) && strcmp(formats[f], fmt) != 0; f++)
		;
	if (f == LEN(formats))
		die("unknown format: %s", bq(fmt));
	sshoptions(&o, &in.conf);
	arg(&o, "Hostname=127.0.0.1");
	arg(&o, "Port=%lld", in.sshport);
	bufputs(&b, f == 0 ? "ssh" : f == 3 ? keep("Host %s", guesthostname(in.name)) : "");
	for (i = 0; i < o.n; i++)
		if (f < 2) {
			bufputs(&b, b.len ? " -o " : "-o ");
			bufquote(&b, o.v[i]);
		} else if (f == 2)
			bufprintf(&b, "%s%s", i ? "\n" : "", o.v[i]);
		else
			bufprintf(&b, "\n  %.*s %s", (int)strcspn(o.v[i], "="), o.v[i], strchr(o.v[i], '=') + 1);
	if (f == 0)
		bufprintf(&b, " %s", guesthostname(in.name));
	puts(b.s);
	argsfree(&o);
	buffree(&b);
	return 0;
}

/* ---- 34. Other commands ------------------------------------------------- */

/* ---- protect, factory-reset, clone, rename ---- */

/* Each instance in turn; one that is not there fails the command at its end. */
static int
setprotected(int argc, char *argv[], bool on)
{
	const char *bad = NULL, *path;
	struct inst in;
	int i, fd;

	for (i = 0; i < argc; i++) {
		if (inspect(&in, argv[i]) < 0) {
			bad = keep("%s%sfailed to inspect instance %s: %s", bad ? bad : "", bad ? "\n" : "", bq(argv[i]), in.errs.v[0]);
			continue;
		}
		path = keep("%s/protected", in.dir);
		if (in.protected == on) {
			warn(on ? "Instance %s is already protected. Skipping." : "Instance %s isn't protected. Skipping.", bq(argv[i]));
			continue;
		}
		if (!on && unlink(path) < 0)
			die("remove %s:", path);
		if (on) {
			if ((fd = open(path, O_WRONLY|O_CREAT|O_CLOEXEC|O_NOFOLLOW, 0400)) < 0)
				die("create %s:", path);
			close(fd);
		}
		info("%s %s", on ? "Protected" : "Unprotected", bq(argv[i]));
	}
	if (bad)
		die("%s", bad);
	return 0;
}

static int
cmdprotect(int argc, char *argv[])
{
	return setprotected(argc, argv, true);
}

static int
cmdunprotect(int argc, char *argv[])
{
	return setprotected(argc, argv, false);
}

static int
cmdreset(int argc, char *argv[])
{
	const char *name = argc ? argv[0] : deftemplate, *path;
	struct inst in;
	struct dirent *d;
	DIR *dp;
	int lock;

	if (badname(name) || (inspect(&in, name) < 0 && errno == ENOENT)) {
		info("Instance %s not found", bq(name));
		return 0;
	}
	lock = lockinstance(&in);
	if (in.protected)
		die("instance is protected to prohibit accidental factory-reset (Hint: use `limactl unprotect`)");
	stopforced(&in);
	dp = opendir(in.dir);
	while (dp && (d = readdir(dp))) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 || strcmp(d->d_name, "lima-version") == 0 ||
		    strcmp(d->d_name, "protected") == 0 || endswith(d->d_name, ".yaml") || endswith(d->d_name, ".yml"))
			continue;
		path = keep("%s/%s", in.dir, d->d_name);
		info("Removing %s", bq(path));
		if (unlink(path) < 0 && (errno != EISDIR || (strcmp(d->d_name, "swtpm") == 0 ? rmtree(path) : rmdir(path)) < 0))
			error("remove %s:", path);
	}
	if (dp)
		closedir(dp);
	close(lock);
	info("Instance %s has been factory reset", bq(name));
	return 0;
}

/* Copy what an instance directory holds.  What belongs to a run of it, or
 * protects it, stays behind; the image is shared where that can be. */
static int
copytree(const char *from, const char *to)
{
	static const char *const run[] = { ".pid", ".sock", ".tmp" };
	const char *src, *dst;
	struct dirent *d;
	struct stat st;
	DIR *dp = opendir(from);
	size_t i;
	int r = dp ? 0 : -1;

	while (r == 0 && (d = readdir(dp))) {
		for (i = 0; i < LEN(run) && !endswith(d->d_name, run[i]); i++)
			;
		if (i < LEN(run) || strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
		    strcmp(d->d_name, "protected") == 0 || strcmp(d->d_name, "swtpm") == 0)
			continue;
		src = keep("%s/%s", from, d->d_name);
		dst = keep("%s/%s", to, d->d_name);
		if (lstat(src, &st) < 0)
			r = -1;
		else if (S_ISDIR(st.st_mode))
			r = mkdir(dst, 0700) < 0 || copytree(src, dst) < 0 ? -1 : 0;
		else if (S_ISREG(st.st_mode))
			r = clonefile(src, dst, strcmp(d->d_name, "basedisk") == 0) < 0 || chmod(dst, st.st_mode & 0777) < 0 ? -1 : 0;
		if (r < 0)
			error("copy %s to %s:", src, dst);
	}
	if (dp)
		closedir(dp);
	return r;
}

/* clone and rename, whose words are told by verb: check, then give a name to
 * the copy or to the original. */
static int
newname(char *argv[], bool clone)
{
	const char *old = argv[0], *new = argv[1], *verb = clone ? "clone" : "rename", *text, *tmp, *e;
	struct inst in;
	struct stat st;
	bool changed;
	int lock, mine = -1;

	if (badname(old) || (inspect(&in, old) < 0 && errno == ENOENT))
		die("instance %s not found", bq(old));
	if (strcmp(old, new) == 0)
		die("new instance name %s must be different from %s", bq(new), bq(old));
	if (in.agent || in.driver)
		die("cannot %s a running instance", verb);
	if ((e = badname(new)))
		die("%s", e);
	if (lstat(instdir(new), &st) == 0)
		die("instance %s already exists", bq(new));
	checkpathlen(new);
	lock = lockinstance(&in);
	if (in.agent || in.driver)
		die("cannot %s a running instance", verb);
	text = editedtext(new, in.dir, &changed);
	tmp = in.dir;
	if (clone) {
		tmp = keep("%s/.%s.tmp.%ld", host.limahome, new, (long)getpid());
		mine = makescratch(tmp, new);
		if (copytree(in.dir, tmp) < 0 || gotsig)
			die(gotsig ? "interrupted" : "the instance %s could not be copied", bq(old));
	}
	if (changed && clone)
		mustwrite(keep("%s/lima.yaml", tmp), text, strlen(text), 0644);
	if (rename(tmp, instdir(new)) < 0) {
		if (errno == EEXIST || errno == ENOTEMPTY)
			die("instance %s already exists", bq(new));
		die("rename %s to %s:", tmp, instdir(new));
	}
	if (clone)
		scratchdrop();
	if (changed && !clone)
		mustwrite(keep("%s/lima.yaml", instdir(new)), text, strlen(text), 0644);
	/* the unit of the old name would make a new instance at the next login */
	if (!clone && dropunit(old))
		(void)addunit(new);
	close(lock);
	if (mine >= 0)
		close(mine);
	if (askstart())
		startnow(new);
	return 0;
}

static int
cmdclone(int argc, char *argv[])
{
	(void)argc;
	return newname(argv, true);
}

static int
cmdrename(int argc, char *argv[])
{
	(void)argc;
	return newname(argv, false);
}

/* ---- snapshots ---- */

/* Snapshots of a qcow2 disk: a stopped instance's by qemu-img, a running one's,
 * with its memory, by QEMU, which calls its monitor for people for that. */
static const struct snapop { const char *hmp, *flag; } snapops[] = {
	{ "savevm", "-c" }, { "loadvm", "-a" }, { "delvm", "-d" }, { "info snapshots", "-l" },
};
static struct {
	struct buf out;
	const char *err;
	bool greeted, done;
} hmp;

static void
hmpevent(const struct ynode *o)
{
	hmp.greeted |= yget(o, "QMP") != NULL;
}

static void
hmpreply(void *arg, const struct ynode *ret, const char *err)
{
	(void)arg;
	hmp.done = true;
	if (ret && ret->kind == Y_STR)
		bufputs(&hmp.out, ret->s);
	else
		hmp.err = keep("%s", err ? err : "no text came back");
}

/* Let QEMU's monitor for people execute a line; what it says is in hmp.out. */
static void
hmprun(const char *dir, const char *line)
{
	const char *sock = keep("%s/qmp.sock", dir);
	struct qmp q = { .fd = connectunix(sock, SOCK_NONBLOCK) };
	struct pollfd p = { .fd = q.fd, .events = POLLIN };
	struct buf b = { 0 };
	bool asked = false;

	buffree(&hmp.out);
	memset(&hmp, 0, sizeof hmp);
	if (q.fd < 0)
		die("connect %s:", sock);
	bufputs(&b, "{\"command-line\":");
	yjsonstr(&b, line, strlen(line));
	bufputc(&b, '}');
	while (!hmp.done && !gotsig) {
		/* a monitor that is in use does not greet; saving memory may take long */
		if (poll(&p, 1, hmp.greeted ? -1 : 5000) == 0)
			die("%s does not answer: another program uses it", sock);
		if (qmpread(&q, hmpevent) < 0)
			hmp.done = true, hmp.err = "QEMU's monitor is closed";
		if (hmp.greeted && !asked && (asked = true) &&
		    (qmpsend(&q, "qmp_capabilities") < 0 || qmpask(&q, "human-monitor-command", b.s, hmpreply, NULL) < 0))
			die("write %s:", sock);
	}
	buffree(&b);
	qmpclose(&q);
	if (gotsig)
		die("interrupted");
	if (hmp.err)
		die("QEMU failed to execute %s: %s", bq(line), hmp.err);
}

/* The table of snapshots without its heading, or the tags alone. */
static void
snapshottable(const char *text)
{
	char *s = keep("%s", text), *line, *w;
	bool head = false;

	while ((line = strsep(&s, "\n"))) {
		chomp(line);
		if (!*line || startswith(line, "List of snapshots") || startswith(line, "Snapshot list") || startswith(line, "There is no snapshot"))
			continue;
		if (!opt[FQUIET].b) {
			puts(line);
			continue;
		}
		w = keep("%s", line);
		(void)strtok(w, " ");
		w = strtok(NULL, " ");
		if (!head && (!w || strcmp(w, "TAG") != 0))
			die("unknown header: %s", line);
		if (head && w)
			puts(w);
		head = true;
	}
}

/* After a snapshot was loaded: the guest knows nothing of the ssh connection,
 * and its clock stands where it was saved. */
static void
snapshotloaded(const struct inst *in)
{
	struct timespec ts;
	pid_t pid;
	size_t i;
	long long sent;
	int tries = 0, st;

	/* what the guest's sshfs wait for and have open is of another time: anew */
	for (i = 0; i < in->conf.mounts.n; i++)
		if ((pid = lockholder(keep("%s/mnt.%zu.pid", in->dir, i))) > 0)
			(void)kill(pid, SIGKILL);
	reconnect(in);
	do {                    /* the first ssh may take seconds, by which the clock is then behind */
		clock_gettime(CLOCK_REALTIME, &ts);
		sent = now();
		st = guestquiet(in, keep("sudo -n date -s @%lld", (long long)ts.tv_sec + (ts.tv_nsec >= 500000000)), -1);
	} while (st == 0 && now() - sent > 2 * clockslack && ++tries < clocktries);
	if (st != 0)
		warn("The clock of the instance %s could not be set (try `limactl restart %s`)", bq(in->name), in->name);
}

/* QEMU pauses the guest before it looks for the snapshot, and leaves it so when
 * there is none. */
static void
snapshotmissing(const char *dir)
{
	hmprun(dir, "info status");
	if (hmp.out.s && strstr(hmp.out.s, "restore-vm"))
		hmprun(dir, "cont");
}

static int
snapshot(const char *name, const struct snapop *op)
{
	const char *tag = opt[FTAG].set ? opt[FTAG].s : "";
	struct args a = { 0 };
	struct buf out = { 0 };
	struct inst in;
	bool list = op == &snapops[3];
	int lock, st;

	warn("`limactl snapshot` is experimental");
	if (inspect(&in, name) < 0)
		die("%s", in.errs.v[0]);
	if (!list && !*tag)
		die("expected tag");
	if (!list && tag[strspn(tag, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")])
		die("tag %s has characters other than letters, digits and . _ + -", bq(tag));
	lock = lockinstance(&in);
	if (in.driver) {
		if (!list)
			info("Sending HMP %s command", op->hmp);
		hmprun(in.dir, list ? op->hmp : keep("%s %s", op->hmp, tag));
		if (list)
			snapshottable(hmp.out.s ? hmp.out.s : "");
		else if (hmp.out.len && *chomp(hmp.out.s)) {
			warn("output: %s", hmp.out.s);
			if (op == &snapops[1] && strstr(hmp.out.s, "does not exist"))
				snapshotmissing(in.dir);
		} else if (op == &snapops[1])
			snapshotloaded(&in);
		buffree(&hmp.out);
		close(lock);
		return 0;
	}
	argwords(&a, "qemu-img snapshot");
	arg(&a, "%s", op->flag);
	if (!list)
		arg(&a, "%s", tag);
	arg(&a, "disk");
	if ((st = runto(a.v, in.dir, list ? &out : NULL, -1)) == -1)
		die("qemu-img: not found in PATH; install qemu-utils");
	if (list && st == 0)
		snapshottable(out.s ? out.s : "");
	buffree(&out);
	argsfree(&a);
	close(lock);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 1;
}

#define SNAPSHOT(fn, i) \
static int \
fn(int argc, char *argv[]) \
{ \
	(void)argc; \
	return snapshot(argv[0], &snapops[i]); \
}
SNAPSHOT(cmdsnapcreate, 0)
SNAPSHOT(cmdsnapapply, 1)
SNAPSHOT(cmdsnapdelete, 2)
SNAPSHOT(cmdsnaplist, 3)

/* ---- disks ---- */

/* The value of --size in bytes. */
static long long
disksize(void)
{
	char err[128];
	long long n = 0;

	if (!opt[FSIZE].set)
		die("required flag(s) \"size\" not set");
	if (parsesize(opt[FSIZE].s, &n, err) < 0)
		die("%s", err);
	if (n < 1)
		die("flag --size: a disk of %s is too small", bq(opt[FSIZE].s));
	return n;
}

/* Look at a disk that is to be there and in order. */
static void
needdisk(struct disk *d, const char *name, const char *missing)
{
	const char *why;

	if (!diskfind(d, name, &why))
		die("%s", missing);
	if (why)
		die("disk %s: %s", bq(name), why);
}

/* A new, hidden directory for a disk, removed again when we die; diskmade gives
 * it the disk's name. */
static const char *
diskmake(const char *name)
{
	const char *bad = badident(name), *top = keep("%s/_disks", host.limahome), *tmp = keep("%s/.%s.tmp.%ld", top, name, (long)getpid());
	struct disk d;
	const char *why;

	needhome();
	if (bad)
		die("disk name %s is invalid: %s", bq(name), bad);
	if (diskfind(&d, name, &why))
		die("disk %s already exists (%s)", bq(name), bq(d.dir));
	if (mkdirs(top, 0700) < 0)
		die("create %s:", top);
	(void)makescratch(tmp, name);
	return tmp;
}

static void
diskmade(const char *tmp, const char *name)
{
	const char *dir = keep("%s/_disks/%s", host.limahome, name);

	if (gotsig)
		die("interrupted");
	if (rename(tmp, dir) < 0)
		die("rename %s to %s:", tmp, dir);
	scratchdrop();
}

static int
cmddiskcreate(int argc, char *argv[])
{
	const char *fmt = opt[FDISKFORMAT].set ? opt[FDISKFORMAT].s : "qcow2", *tmp, *file;
	long long size = disksize();
	int fd;

	(void)argc;
	if (strcmp(fmt, "qcow2") != 0 && strcmp(fmt, "raw") != 0)
		die("disk format %s not supported, use `qcow2` or `raw` instead", bq(fmt));
	tmp = diskmake(argv[0]);
	file = keep("%s/datadisk", tmp);
	info("Creating %s disk %s with size %s", fmt, bq(argv[0]), printsize(size));
	if (*fmt == 'q') {
		makedisk(tmp, NULL, NULL, size);
		if (rename(keep("%s/disk", tmp), file) < 0)
			die("rename %s/disk:", tmp);
	} else if ((fd = open(file, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0644)) < 0 || ftruncate(fd, (off_t)size) < 0 || close(fd) < 0)
		die("create %s:", file);
	diskmade(tmp, argv[0]);
	return 0;
}

static int
cmddiskimport(int argc, char *argv[])
{
	const char *file = localpath(argv[1]), *fmt, *tmp, *why;
	long long size;

	(void)argc;
	if ((why = imageformat(file, &fmt, &size)))
		die("%s", why);
	tmp = diskmake(argv[0]);
	if (clonefile(file, keep("%s/datadisk", tmp), false) < 0)
		die("copy %s:", file);
	diskmade(tmp, argv[0]);
	info("Imported %s with size %s", argv[0], printsize(size));
	return 0;
}

/* All disks, sorted by name. */
static struct strs
alldisks(void)
{
	struct strs s = { 0 };
	struct dirent *e;
	struct disk d;
	const char *why;
	DIR *dp = opendir(keep("%s/_disks", host.limahome));

	while (dp && (e = readdir(dp)))
		if (*e->d_name != '.' && diskfind(&d, keep("%s", e->d_name), &why))
			stradd(&s, d.name);
	if (dp)
		closedir(dp);
	if (s.n)
		qsort(s.v, s.n, sizeof *s.v, strpcmp);
	return s;
}

static void
diskjson(const struct disk *d, const char *user)
{
	struct ydoc doc = { 0 };
	struct ynode *m = ynewmap(&doc);
	struct buf b = { 0 };

	putstr(&doc, m, "name", d->name);
	(void)yput(&doc, m, "size", ynewint(&doc, d->size));
	putstr(&doc, m, "format", d->fmt);
	putstr(&doc, m, "dir", d->dir);
	putstr(&doc, m, "instance", user);
	putstr(&doc, m, "instanceDir", d->owner ? d->owner : "");
	putstr(&doc, m, "mountPoint", keep("/mnt/lima-%s", d->name));
	yjson(&b, m, 0);
	puts(b.s);
	buffree(&b);
	yfree(&doc);
}

static int
cmddisklist(int argc, char *argv[])
{
	static const char *const head[] = { "NAME", "SIZE", "FORMAT", "DIR", "IN-USE-BY" };
	const char *(*cell)[9], *why, *user;
	struct strs s = { 0 };
	struct disk d;
	size_t rows = 0, i, n;

	if (!argc)
		s = alldisks();
	n = argc ? (size_t)argc : s.n;
	cell = yalloc(&perm, (n + 1) * sizeof *cell);
	memcpy(cell[rows++], head, sizeof head);
	if (!n)
		warn("No disk found. Run `limactl disk create DISK --size SIZE` to create a disk.");
	for (i = 0; i < n; i++) {
		if (!diskfind(&d, argc ? argv[i] : s.v[i], &why)) {
			warn("No disk matching %s found.", argv[i]);
			continue;
		}
		if (why)
			warn("disk %s: %s", bq(d.name), why);
		user = d.owner ? strrchr(d.owner, '/') + 1 : "";
		if (opt[FJSON].b) {
			diskjson(&d, user);
			continue;
		}
		memcpy(cell[rows++], (const char *[]){ d.name, printsize(d.size), d.fmt, d.dir, user }, sizeof head);
	}
	if (!opt[FJSON].b)
		printtable(cell, rows, LEN(head));
	return 0;
}

/* The instances whose configuration names a disk, `A`, `B`; "" when none does. */
static const char *
diskusers(const char *name)
{
	struct strs all = allinstances();
	const struct datadisk *v;
	const char *users = "";
	struct inst in;
	size_t i, k;

	for (i = 0; i < all.n; i++) {
		if (inspect(&in, all.v[i]) < 0)
			continue;
		for (v = in.conf.disks.v, k = 0; k < in.conf.disks.n && strcmp(v[k].name, name) != 0; k++)
			;
		if (k < in.conf.disks.n)
			users = keep("%s%s%s", users, *users ? ", " : "", bq(in.name));
	}
	return users;
}

static int
cmddiskdelete(int argc, char *argv[])
{
	struct disk d;
	const char *why, *users;
	int i, fd;

	for (i = 0; i < argc; i++) {
		if (!diskfind(&d, argv[i], &why)) {
			warn("Ignoring non-existent disk %s", bq(argv[i]));
			continue;
		}
		fd = disklock(&d, &why);
		if (!opt[FFORCE].b && d.owner && diskheld(d.owner))
			die("cannot delete disk %s in use by instance %s", bq(d.name), bq(strrchr(d.owner, '/') + 1));
		if (!opt[FFORCE].b && *(users = diskusers(d.name))) {
			warn("Skipping deleting disk %s, disk is referenced by one or more non-running instances: [%s]", bq(d.name), users);
			warn("To delete anyway, run %s", bq(keep("limactl disk delete --force %s", d.name)));
		} else if (rmtree(d.dir) < 0)
			die("remove %s:", d.dir);
		else
			info("Deleted %s (%s)", bq(d.name), bq(d.dir));
		close(fd);
	}
	return 0;
}

static int
cmddiskunlock(int argc, char *argv[])
{
	struct disk d;
	struct inst in;
	const char *why;
	int i, fd;

	for (i = 0; i < argc; i++) {
		if (!diskfind(&d, argv[i], &why)) {
			warn("Ignoring non-existent disk %s", bq(argv[i]));
			continue;
		}
		fd = disklock(&d, &why);        /* looks again at who has it */
		if (!d.owner)
			warn("Ignoring unlocked disk %s", bq(argv[i]));
		else if (diskheld(d.owner) || (inspect(&in, strrchr(d.owner, '/') + 1) == 0 && in.errs.n))
			warn("Cannot unlock disk %s used by instance %s, which runs or has errors", bq(argv[i]), bq(strrchr(d.owner, '/') + 1));
		else if (unlink(d.lock) < 0)
			die("remove %s:", d.lock);
		else
			info("Unlocked disk %s (%s)", bq(argv[i]), bq(d.dir));
		close(fd);
	}
	return 0;
}

static int
cmddiskresize(int argc, char *argv[])
{
	long long size = disksize();
	struct disk d;
	const char *why;
	int fd;

	(void)argc;
	needdisk(&d, argv[0], keep("disk %s does not exists", bq(argv[0])));
	fd = disklock(&d, &why);
	if (d.owner && diskheld(d.owner))
		die("cannot resize disk %s used by running instance %s. Please stop the VM instance", bq(d.name), bq(strrchr(d.owner, '/') + 1));
	if (size < d.size)
		die("specified size %s is less than the current disk size %s. Disk shrinking is currently unavailable",
		    bq(printsize(size)), bq(printsize(d.size)));
	resizedisk(d.dir, "datadisk", d.fmt, size);
	close(fd);
	info("Resized disk %s (%s)", bq(d.name), bq(d.dir));
	return 0;
}

/* ---- networks ---- */

static void
networkline(const char *name, const struct ynode *n, bool json, const char *cell[9])
{
	static const char *const keys[] = { "mode", "interface", "gateway", "dhcpEnd", "netmask" };
	const char *val[LEN(keys)];
	struct buf b = { 0 };
	struct in_addr mask;
	size_t i;

	for (i = 0; i < LEN(keys); i++)
		val[i] = ystr(yget(n, keys[i]));
	if (json) {
		bufputs(&b, "{\"name\":");
		yjsonstr(&b, name, strlen(name));
		for (i = 0; i < LEN(keys); i++)
			if (val[i] && *val[i]) {
				bufprintf(&b, ",\"%s\":", keys[i]);
				yjsonstr(&b, val[i], strlen(val[i]));
			}
		printf("%s}\n", b.s);
		buffree(&b);
		return;
	}
	if (!val[4] || inet_pton(AF_INET, val[4], &mask) != 1)
		(void)inet_pton(AF_INET, "255.255.255.0", &mask);
	cell[0] = name;
	cell[1] = val[0] ? val[0] : "-";
	cell[2] = val[2] && *val[2] ? keep("%s/%d", val[2], __builtin_popcount(mask.s_addr)) : "-";
	cell[3] = val[1] && *val[1] ? val[1] : "-";
}

static int
cmdnetlist(int argc, char *argv[])
{
	static const char *const head[] = { "NAME", "MODE", "GATEWAY", "INTERFACE" };
	const char *(*cell)[9];
	struct strs names = { 0 };
	const struct ynode *nets, *n;
	struct ydoc d;
	size_t rows = 0, i;

	networksload(&d);
	nets = yget(d.root, "networks");
	names.v = yalloc(&perm, ((nets ? nets->n : 0) + (size_t)argc + 1) * sizeof *names.v);
	for (i = 0; i < (size_t)argc; i++)
		names.v[names.n++] = argv[i];
	for (n = nets && !argc ? nets->first : NULL; n; n = n->next)
		names.v[names.n++] = ykey(n);
	if (!argc)
		qsort(names.v, names.n, sizeof *names.v, strpcmp);
	cell = yalloc(&perm, (names.n + 1) * sizeof *cell);
	memcpy(cell[rows++], head, sizeof head);
	for (i = 0; i < names.n; i++)
		if ((n = yget(nets, names.v[i])))
			networkline(names.v[i], n, opt[FJSON].b, cell[opt[FJSON].b ? 0 : rows++]);
		else
			warn("No network matching %s found.", names.v[i]);
	if (!opt[FJSON].b)
		printtable(cell, rows, LEN(head));
	yfree(&d);
	return 0;
}

/* An IPv4 gateway with its width, /24 unless said, in its two parts. */
static void
splitcidr(const char *cidr, const char **ip, const char **mask)
{
	const char *slash = strchr(cidr, '/'), *full = slash ? cidr : keep("%s/24", cidr);
	struct in_addr a;
	long long bits = 24;
	char text[INET_ADDRSTRLEN];

	*ip = slash ? keep("%.*s", (int)(slash - cidr), cidr) : cidr;
	if (inet_pton(AF_INET, *ip, &a) != 1 || (slash && parsenum(slash + 1, 1, 30, &bits) < 0))
		die("failed to parse CIDR %s: invalid CIDR address: %s", bq(full), full);
	if (a.s_addr == 0 || (ntohl(a.s_addr) >> 24) == 127 || (ntohl(a.s_addr) >> 28) >= 14)
		die("invalid IP address: %s", *ip);
	a.s_addr = htonl(0xffffffffu << (32 - bits));
	*mask = keep("%s", inet_ntop(AF_INET, &a, text, sizeof text));
}

static int
cmdnetcreate(int argc, char *argv[])
{
	static const char *const modes[] = { "user-v2", "host", "shared", "bridged" };
	const char *mode = opt[FMODE].set ? opt[FMODE].s : "user-v2", *ip = NULL, *mask = NULL, *e;
	const char *gw = opt[FGATEWAY].set ? opt[FGATEWAY].s : "", *ifc = opt[FINTERFACE].set ? opt[FINTERFACE].s : "";
	bool bridged = strcmp(mode, "bridged") == 0;
	struct ynode *n;
	struct ydoc d;
	int lock;

	(void)argc;
	if ((e = badident(argv[0])))
		die("network name %s is invalid: %s", bq(argv[0]), e);
	if (!oneof(mode, modes, LEN(modes)))
		die("network mode %s is unknown, must be one of: user-v2, host, shared, bridged", bq(mode));
	lock = networksload(&d);
	if (yget(yget(d.root, "networks"), argv[0]))
		die("network %s already exists", bq(argv[0]));
	if (bridged && *gw)
		die("network mode %s does not support specifying gateway", bq(mode));
	if (bridged && !*ifc)
		die("network mode %s requires specifying interface", bq(mode));
	if (!bridged && *ifc)
		die("network mode %s does not support specifying interface", bq(mode));
	if (!bridged && !*gw)
		die("network mode %s requires specifying gateway", bq(mode));
	n = ynewmap(&d);
	putstr(&d, n, "mode", mode);
	if (!bridged) {
		splitcidr(gw, &ip, &mask);
		putstr(&d, n, "gateway", ip);
		putstr(&d, n, "netmask", mask);
	}
	putstr(&d, n, "interface", ifc);
	if (!yget(d.root, "networks"))
		(void)yput(&d, d.root, "networks", ynewmap(&d));
	(void)yput(&d, yget(d.root, "networks"), argv[0], n);
	networksave(&d, lock);
	return 0;
}

static int
cmdnetdelete(int argc, char *argv[])
{
	struct ydoc d;
	struct ynode *n;
	int i, lock;

	if (!opt[FFORCE].b)
		die("`limactl network delete` currently always requires `--force`");
	lock = networksload(&d);
	for (i = 0; i < argc; i++)
		if ((n = yget(yget(d.root, "networks"), argv[i])))
			ydel(&d, n);
	networksave(&d, lock);
	return 0;
}

/* ---- autostart ---- */

static void
needsystemd(void)
{
	if (access("/run/systemd/system", F_OK) < 0)    /* sd_booted(3) */
		die("autostart is not supported on linux (without systemd)");
}

static int
cmdautoenable(int argc, char *argv[])
{
	const char *when = opt[FCONDITION].set ? opt[FCONDITION].s : "login";
	struct inst in;

	(void)argc;
	if (strcmp(when, "boot") == 0)
		die("--condition=boot is only supported on macOS");
	if (strcmp(when, "login") != 0)
		die("unknown condition %s, must be login", bq(when));
	if (badname(argv[0]) || inspect(&in, argv[0]) < 0)
		die("instance \"%s\" not found", argv[0]);
	needsystemd();
	(void)addunit(argv[0]);
	info("Instance %s registered to start at login", bq(argv[0]));
	return 0;
}

static int
cmdautodisable(int argc, char *argv[])
{
	struct inst in;

	(void)argc;
	if (badname(argv[0]) || inspect(&in, argv[0]) < 0)
		die("instance \"%s\" not found", argv[0]);
	info(dropunit(argv[0]) ? "Instance %s unregistered from start at login" :
	    "Instance %s is not registered for automatic startup", bq(argv[0]));
	return 0;
}

static int
cmdatlogin(int argc, char *argv[])
{
	const char *name = argc ? argv[0] : deftemplate;
	struct inst in;

	fputs("Command \"start-at-login\" is deprecated, use \"limactl autostart\" instead\n", stderr);
	if (badname(name) || inspect(&in, name) < 0) {
		info("Instance %s not found", bq(name));
		return 0;
	}
	if (opt[FENABLED].set && !opt[FENABLED].b) {
		info(dropunit(name) ? "The autostart entry for instance %s has been unregistered" :
		    "The autostart entry for instance %s is not registered", bq(name));
		return 0;
	}
	needsystemd();
	info("The autostart entry for instance %s has been %s", bq(name), addunit(name) ? "created" : "updated");
	return 0;
}

/* ---- watch ---- */

/* One event log that is followed. */
struct watched {
	const char *name, *path;
	int fd, wd;             /* -1 while there is none */
	struct buf line;
	struct watched *next;
};
static struct watched *watchnow;        /* whose line followread() hands on */

/* What an event says, in words. */
static void
eventtext(struct buf *b, const struct ynode *st)
{
	static const struct { const char *type, *fmt; } fwd[] = {
		{ "forwarding", "forwarding %s %s to %s" }, { "not-forwarding", "not forwarding %s %s" },
		{ "stopping", "stopping forwarding %s %s" }, { "failed", "failed to forward %s %s: %s" },
	};
	const struct ynode *n, *e;
	const char *f[4];
	size_t i;

	if ((n = yget(st, "portForward"))) {
		static const char *const keys[] = { "type", "protocol", "guestAddr", "hostAddr" };
		for (i = 0; i < 4; i++)
			f[i] = (e = yget(n, keys[i])) && e->kind == Y_STR ? e->s : "";
		if (strcmp(f[0], "failed") == 0)
			f[3] = (e = yget(n, "error")) && e->kind == Y_STR ? e->s : "";
		for (i = 0; i < LEN(fwd); i++)
			if (strcmp(fwd[i].type, f[0]) == 0)
				bufprintf(b, fwd[i].fmt, f[1], f[2], f[3]);
	} else if ((n = yget(st, "cloudInitProgress"))) {
		if ((e = yget(n, "completed")) && e->i)
			bufputs(b, "cloud-init completed");
		else if ((e = yget(n, "logLine")) && e->kind == Y_STR)
			bufprintf(b, "cloud-init: %s", e->s);
	} else if ((n = yget(st, "errors")) && n->first) {
		bufprintf(b, "error: %s", n->first->kind == Y_STR ? n->first->s : "");
	} else if ((n = yget(st, "exiting")) && n->i) {
		bufputs(b, "exiting");
	} else if ((n = yget(st, "running")) && n->i) {
		bufputs(b, (e = yget(st, "degraded")) && e->i ? "running (degraded)" : "running");
	} else if ((n = yget(st, "sshLocalPort"))) {
		bufprintf(b, "ssh available on port %lld", n->i);
	}
}

/* A line of an event log. */
static void
watchline(const char *s)
{
	struct ydoc d = { 0 };
	struct buf b = { 0 }, text = { 0 };
	const struct ynode *t, *st;

	if (yparsejson(&d, s, strlen(s)) == 0 && (t = yget(d.root, "time")) && t->kind == Y_STR && (st = yget(d.root, "status"))) {
		if (opt[FJSON].b) {
			bufputs(&b, "{\"instance\":");
			yjsonstr(&b, watchnow->name, strlen(watchnow->name));
			bufprintf(&b, ",\"event\":%s}", s);
			puts(b.s);
		} else {
			eventtext(&text, st);
			bufsafe(&b, text.s ? text.s : "", text.len);
			if (b.len)
				printf("%.10s %.8s %s | %s\n", t->s, strlen(t->s) > 11 ? t->s + 11 : "", watchnow->name, b.s);
		}
		(void)flushed(0);
	}
	yfree(&d);
	buffree(&b);
	buffree(&text);
}

static void
watchsay(const char *text)
{
	char ts[64];

	timestamp(ts, sizeof ts, 0);
	fprintf(stderr, "%.10s %.8s %s\n", ts, ts + 11, text);
}

/* Read what an instance's log has anew; it may have been emptied or replaced. */
static void
watchread(struct watched *w)
{
	struct stat st, cur;

	if (w->fd >= 0 && (stat(w->path, &cur) < 0 || fstat(w->fd, &st) < 0 || cur.st_ino != st.st_ino)) {
		close(w->fd);
		w->fd = -1;
	}
	if (w->fd < 0 && (w->fd = open(w->path, O_RDONLY|O_CLOEXEC)) < 0)
		return;
	if (fstat(w->fd, &st) == 0 && lseek(w->fd, 0, SEEK_CUR) > st.st_size)
		(void)lseek(w->fd, 0, SEEK_SET);
	watchnow = w;
	while (followread(w->fd, &w->line, watchline))
		;
}

static struct watched *
seewatch(struct watched **list, int in, const char *name, bool old)
{
	struct watched *w;

	for (w = *list; w && strcmp(w->name, name) != 0; w = w->next)
		;
	if (!w) {
		w = yalloc(&perm, sizeof *w);
		*w = (struct watched){ .name = keep("%s", name), .path = keep("%s/ha.stdout.log", instdir(name)), .fd = -1, .next = *list };
		*list = w;
	}
	/* a directory of the same name that came back has no watch */
	w->wd = inotify_add_watch(in, instdir(name), IN_CREATE|IN_MODIFY|IN_MOVED_TO|IN_ONLYDIR);
	if (old && !opt[FHISTORY].b && (w->fd = open(w->path, O_RDONLY|O_CLOEXEC)) >= 0)
		(void)lseek(w->fd, 0, SEEK_END);
	return w;
}

static int
cmdwatch(int argc, char *argv[])
{
	union { struct inotify_event e; char bytes[8192]; } u;
	const struct inotify_event *e;
	struct strs names = allinstances();
	struct watched *list = NULL, *w;
	struct inst in;
	int fd = inotify_init1(IN_CLOEXEC), home = -1, i;
	ssize_t n, at;

	if (!opt[FWATCHALL].b && !opt[FDEBUG].b && !opt[FLOGLEVEL].set)
		msg.min = WARN;
	if (fd < 0)
		die("inotify (raise fs.inotify.max_user_instances):");
	for (i = 0; i < argc; i++) {
		if (inspect(&in, argv[i]) < 0)
			die("%s", in.errs.v[0]);
		(void)seewatch(&list, fd, argv[i], true);
	}
	if (!argc) {
		needhome();
		if ((home = inotify_add_watch(fd, host.limahome, IN_CREATE|IN_MOVED_TO)) < 0)
			die("inotify on %s:", host.limahome);
		for (i = 0; i < (int)names.n; i++)
			(void)seewatch(&list, fd, names.v[i], true);
	}
	watchsay(!argc && !names.n ? "No instances found" : "Watching for events...");
	for (w = list; w; w = w->next)
		watchread(w);
	while (!gotsig && (n = read(fd, &u, sizeof u)) > 0)
		for (at = 0; at < n; at += (ssize_t)sizeof *e + (ssize_t)e->len) {
			e = (const struct inotify_event *)(const void *)(u.bytes + at);
			if (e->wd == home && e->len && (e->mask & IN_ISDIR) && *e->name != '.' && *e->name != '_') {
				watchsay(keep("New instance detected: %s", e->name));
				watchread(seewatch(&list, fd, e->name, false));
			}
			if (e->mask & IN_Q_OVERFLOW && home >= 0)
				for (names = allinstances(), i = 0; i < (int)names.n; i++)
					(void)seewatch(&list, fd, names.v[i], false);
			for (w = list; w; w = w->next)
				if (e->mask & IN_Q_OVERFLOW || (e->wd == w->wd && e->len && strcmp(e->name, "ha.stdout.log") == 0))
					watchread(w);
		}
	for (w = list; w; w = w->next) {
		buffree(&w->line);
		if (w->fd >= 0)
			close(w->fd);
	}
	close(fd);
	return 0;
}

/* ---- what makes no sense here ---- */

/* Commands of limactl that have nothing to do on this host or with this driver:
 * scripts get a reason, and status 1. */
static const struct { const char *cmd, *why; } senseless[] = {
	{ "sudoers", "sudoers command is only supported on macOS right now" },
	{ "guest-install", "guest-install is not needed: the guest gets what it needs at each boot (`limactl restart`)" },
	{ "usernet", "usernet is no process of its own here" },
	{ "debug dns", "debug dns: there is no DNS server of ours; QEMU's user network forwards to the host's resolver" },
	{ "generate-doc", "generate-doc: the manual limactl(1) is written by hand and comes with the source" },
	{ "generate-jsonschema", "generate-jsonschema: there is no schema; `limactl validate FILE` checks a file" },
};

static int
cmdsenseless(int argc, char *argv[])
{
	size_t i;

	(void)argc;
	(void)argv;
	for (i = 0; i < LEN(senseless) && strcmp(senseless[i].cmd, curcmd->name) != 0; i++)
		;
	die("%s", senseless[i % LEN(senseless)].why);
}

static int
cmdscreenshot(int argc, char *argv[])
{
	const char *out = opt[FOUTPUT].set ? opt[FOUTPUT].s : keep("%s-screenshot.png", argv[0]);
	struct inst in;

	(void)argc;
	if (inspect(&in, argv[0]) < 0)
		die("%s", in.errs.v[0]);
	if (in.state != SRUNNING)
		die("instance \"%s\" is not running (status: %s)", in.name, statename[in.state]);
	if (!endswith(out, ".png") && !endswith(out, ".bmp"))
		die("unsupported screenshot format of %s: it must end in .png or .bmp", bq(out));
	die("screenshot failed: driver \"qemu\": driver does not support screenshots");
}

/* ---- yq ---- */

static void usage(const struct cmd *c);

/* What limactl yq was told. */
static struct {
	bool null, raw, rawset, inplace, status, nodoc, colour, noenv, nofile, version, pretty, plainly, help;
	const char *in, *out, *indent, *file;
} yq;
static const struct { char ch; const char *name; bool *on; const char **val; } yqopts[] = {
	{ 'n', "null-input", &yq.null, NULL }, { 'p', "input-format", NULL, &yq.in }, { 'o', "output-format", NULL, &yq.out },
	{ 'I', "indent", NULL, &yq.indent }, { 'r', "unwrapScalar", &yq.raw, NULL }, { 'i', "inplace", &yq.inplace, NULL },
	{ 0, "from-file", NULL, &yq.file }, { 'e', "exit-status", &yq.status, NULL }, { 'N', "no-doc", &yq.nodoc, NULL },
	{ 'P', "prettyPrint", &yq.pretty, NULL }, { 'C', "colors", &yq.colour, NULL }, { 'M', "no-colors", &yq.plainly, NULL },
	{ 0, "security-disable-env-ops", &yq.noenv, NULL }, { 0, "security-disable-file-ops", &yq.nofile, NULL },
	{ 'V', "version", &yq.version, NULL }, { 'h', "help", &yq.help, NULL },
};

static _Noreturn PRINTF(1, 2) void
yqdie(const char *fmt, ...)
{
	char why[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	fflush(stdout);
	fprintf(stderr, "Error: %s\n", why);
	exit(1);
}

/* One option word, which may be several short ones; the number of words taken. */
static int
yqflag(char *argv[])
{
	const char *w = argv[0] + 1, *eq;
	bool wide = *w == '-';
	size_t i, n;

	for (w += wide; *w; w++) {
		eq = strchr(w, '=');
		n = eq ? (size_t)(eq - w) : strlen(w);
		for (i = 0; i < LEN(yqopts) && !(wide ? strlen(yqopts[i].name) == n && strncmp(yqopts[i].name, w, n) == 0 : yqopts[i].ch == *w); i++)
			;
		if (i == LEN(yqopts))
			yqdie("unknown flag: %s", argv[0]);
		if (yqopts[i].on) {
			*yqopts[i].on = true;
			if (eq && (wide || eq == w + 1) && !boolword(eq + 1, yqopts[i].on))
				yqdie("invalid argument \"%s\" for \"--%s\" flag", eq + 1, yqopts[i].name);
			yq.rawset |= yqopts[i].on == &yq.raw;
			if (wide || (eq && eq == w + 1))
				return 1;
			continue;
		}
		if (wide ? eq != NULL : w[1] != '\0')
			*yqopts[i].val = wide ? eq + 1 : w + 1 + (w[1] == '=');
		else if (!(*yqopts[i].val = argv[1]))
			yqdie("flag needs an argument: --%s", yqopts[i].name);
		return wide ? eq ? 1 : 2 : w[1] ? 1 : 2;
	}
	return 1;
}

/* Where the JSON value at s ends. */
static size_t
jsonend(const char *s)
{
	size_t i = strspn(s, " \t\r\n");
	long depth = 0;

	for (; s[i]; i++) {
		if (s[i] == '"')
			for (i++; s[i] && s[i] != '"'; i++)
				i += s[i] == '\\' && s[i + 1];
		depth += s[i] && strchr("[{", s[i]) ? 1 : s[i] && strchr("]}", s[i]) ? -1 : 0;
		if (!s[i])
			break;
		if (depth <= 0 && (strchr("]}\"", s[i]) || strchr(" \t\r\n", s[i + 1])))
			return i + 1;
	}
	return i;
}

/* All documents of a text, NULL: null. */
static void
yqtext(const char *expr, const char *name, const char *text, size_t len, struct buf *out, size_t *results, bool *good)
{
	bool json = yq.in ? *yq.in == 'j' : name && endswith(name, ".json"), first = true;
	struct xlook how = { .json = yq.out ? *yq.out == 'j' : json, .indent = yq.indent ? (int)strtol(yq.indent, NULL, 10) : 2 };
	const char *why;
	size_t at = 0, n;

	how.raw = yq.rawset ? yq.raw : !how.json;
	while (first || (text && at < len && text[at + strspn(text + at, " \t\r\n")])) {
		struct ydoc d = { 0 };
		struct xlist l = { 0 };
		struct x x = { .noenv = yq.noenv, .nofile = yq.nofile };

		if (text && at && !json && startswith(text + at, "---\n"))
			at += 4;
		n = text ? json ? jsonend(text + at) : len - at : 0;
		if ((json && n ? yparsejson(&d, text + at, n) : yparse(&d, text ? text + at : "", n)) < 0)
			yqdie("bad file '%s': [%d:%d] %s", name ? name : "-", d.eline, d.ecol, d.err);
		if (!json && d.docend && d.docend < n) {
			n = d.docend;   /* again alone, so that it can be written as a whole */
			yfree(&d);
			(void)yparse(&d, text + at, n);
		}
		at += n;
		if ((why = xrun(&x, &d, expr, &l)))
			yqdie("%s", why);
		for (n = 0; n < l.n; n++) {
			const struct ynode *v = l.v[n]->n;
			if ((*results)++ && !yq.nodoc && !how.json && n == 0 && v->line)
				bufputs(out, "---\n");
			xprint(out, &how, &d, l.v[n]->n);
			*good |= v->kind != Y_NULL && (v->kind != Y_BOOL || v->i);
		}
		yfree(&d);
		first = false;
	}
}

/* Become mikefarah's yq for what is beyond us. */
static void
yqforeign(const char *expr, char *argv[])
{
	struct ydoc d = { 0 };
	struct x x = { .noenv = yq.noenv, .nofile = yq.nofile };
	struct xnode *e;
	const char *prog, *why = xparse(&x, &d, expr, &e);

	if (why && x.foreign && (prog = foreignyq())) {
		execv(prog, argv);
		yqdie("run %s: %s", prog, errtext(errno));
	}
	if (why)
		yqdie("%s", xwhy(&x));
	yfree(&d);
}

/* A format that was asked for; NULL: by the names of files.  What is neither
 * YAML nor JSON is left to mikefarah's yq. */
static const char *
yqformat(const char *f, char *argv[])
{
	static const char *const names[] = { "yaml", "y", "yml", "json", "j" };
	const char *prog;
	size_t i;

	if (!f || strcmp(f, "auto") == 0 || strcmp(f, "a") == 0)
		return NULL;
	for (i = 0; i < LEN(names); i++)
		if (strcmp(names[i], f) == 0)
			return f;
	if ((prog = foreignyq()))
		execv(prog, argv);
	yqdie("unknown format '%s': limactl yq knows yaml and json; more needs yq of github.com/mikefarah/yq in PATH", f);
}

static int
cmdyqlimits(int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	puts("An expression of --set, --yq, --filter or template yq reads no environment (env, strenv,\n"
	    "envsubst) and no file (load and its kin); that of limactl yq may. None runs a command (system).");
	return 0;
}

static int
cmdyq(int argc, char *argv[])
{
	const char *expr = NULL, *file = NULL;
	char **all = yalloc(&perm, ((size_t)argc + 2) * sizeof *all), **words = yalloc(&perm, ((size_t)argc + 2) * sizeof *words);
	struct buf b = { 0 }, out = { 0 };
	struct stat st = { 0 };
	size_t results = 0;
	bool good = false;
	int i, n = 0, k;

	memcpy(all + 1, argv, ((size_t)argc + 1) * sizeof *all);
	all[0] = keep("yq");
	for (i = 0; i < argc; )
		if (argv[i][0] == '-' && argv[i][1])
			i += yqflag(argv + i);
		else
			words[n++] = argv[i++];
	words[n] = NULL;
	if (yq.help) {
		usage(findcmd(NULL, "yq"));
		return 0;
	}
	if (yq.version) {
		puts("yq (expressions of https://github.com/mikefarah/yq/ in lima-c " VERSION ") version v4.50.1");
		return 0;
	}
	k = n && (strcmp(words[0], "eval") == 0 || strcmp(words[0], "e") == 0);
	if (yq.file) {
		if (readfile(yq.file, &b, 1 << 20) < 0)
			yqdie("open %s: %s", yq.file, errtext(errno));
		expr = keep("%s", b.s);
	} else if (k < n && (stat(words[k], &st) < 0 || !S_ISREG(st.st_mode)))
		expr = words[k++];
	expr = expr ? expr : ".";
	yq.in = yqformat(yq.in, all);
	yq.out = yqformat(yq.out, all);
	yqforeign(expr, all);
	if (yq.inplace && k == n)
		yqdie("write in place flag only applicable when giving an expression and at least one file");
	if (yq.null)
		yqtext(expr, NULL, NULL, 0, &out, &results, &good);
	else if (k == n && isatty(0))
		yqdie("no input: name a file, or pipe one in");
	else
		for (; k < n || !file; k++) {
			file = k < n ? words[k] : "-";
			b.len = 0;
			if ((strcmp(file, "-") == 0 ? readall(0, &b, YMAXTEXT) : readfile(file, &b, YMAXTEXT)) < 0)
				yqdie("open %s: %s", file, errtext(errno));
			yqtext(expr, file, b.s, b.len, &out, &results, &good);
			if (yq.inplace) {
				if (stat(file, &st) < 0)
					yqdie("write %s: %s", file, errtext(errno));
				mustwrite(file, out.s ? out.s : "", out.len, st.st_mode & 07777);
				break;
			}
		}
	if (!yq.inplace)
		putdata(&out, !yq.plainly && (yq.colour || coloured()));
	buffree(&b);
	buffree(&out);
	if (yq.status && !good)
		yqdie("no matches found");
	return 0;
}

/* ---- info, validate, hostagent ---- */

/* What deserves a second look: writable homes, and forwards that other machines
 * reach. */
static void
warnshares(const struct conf *c)
{
	const struct mount *m = c->mounts.v;
	const struct forward *f = c->forwards.v;
	const char *in;
	size_t i, k;

	for (i = 0; i < c->mounts.n; i++) {
		if (host.home && m[i].writable > 0 && below(host.home, m[i].location))
			warn("mounts[%zu]: the guest may change everything in your home directory; share a directory of it, or drop `writable: true`", i);
		for (k = 0; k < c->mounts.n; k++)
			if (m[k].writable > 0 && (in = below(m[i].location, m[k].location)) && *in)
				warn("mounts[%zu]: it lies in mounts[%zu], which is writable: the guest may put a link there, to be followed at the next start", i, k);
	}
	for (i = 0; i < c->forwards.n; i++)
		if (f[i].ignore <= 0 && !(f[i].hostsocket && *f[i].hostsocket) && !startswith(f[i].hostip, "127.") && strcmp(f[i].hostip, "::1") != 0)
			warn("portForwards[%zu]: `hostIP: %s` is reachable from other machines; 127.0.0.1, the default, is not", i, f[i].hostip);
}

/* A configuration with its defaults as YAML. */
static void
filled(struct buf *b, const struct conf *c)
{
	struct ydoc d = { 0 };
	struct ynode *m;

	(void)yparse(&d, "{}", 2);
	m = ynewmap(&d);
	conftree(&d, m, confkeys, c);
	yyaml(b, m, 0);
	yfree(&d);
}

static int
cmdvalidate(int argc, char *argv[])
{
	struct buf b = { 0 };
	struct template t;
	struct conf c;
	int i;

	for (i = 0; i < argc; i++) {
		t = readtemplate(argv[i]);
		if (!t.name)
			die("can't determine instance name from template locator %s", bq(argv[i]));
		t.text = templateembed(&t, opt[FFILL].b ? EMBALL : EMBBASES|EMBTEMPLATES);
		confload(&c, t.name, t.text, strlen(t.text), keep("main file %s", bq(argv[i])), true);
		if (c.errs)
			die("failed to validate YAML file %s: %s", bq(argv[i]), c.errs);
		warnshares(&c);
		if (opt[FFILL].b) {
			b.len = 0;
			filled(&b, &c);
			printf(argc > 1 ? "---\n%s...\n" : "%s", b.s);
		}
		info("%s: OK", bq(argv[i]));
	}
	buffree(&b);
	return 0;
}

/* A template embedded as how says, in b; with its defaults when that is all. */
static void
templatebuf(struct buf *b, const char *loc, int how)
{
	struct template t = readtemplate(loc);
	struct conf c;

	t.text = how < 0 ? t.text : templateembed(&t, how);
	if (how != EMBALL) {
		bufputs(b, t.text);
		return;
	}
	confload(&c, t.name ? t.name : deftemplate, t.text, strlen(t.text), keep("main file %s", bq(loc)), true);
	if (c.errs)
		die("%s", c.errs);
	filled(b, &c);
}

static int
cmdtmplcopy(int argc, char *argv[])
{
	bool all = opt[FEMBEDALL].b, some = opt[FEMBED].b, fill = opt[FFILL].b;
	const char *dest = argc > 1 ? argv[1] : "-";
	struct buf b = { 0 };

	if (opt[FVERBATIM].b && (all || some || fill))
		die("--verbatim cannot be used with any of --embed, --embed-all, or --fill");
	templatebuf(&b, argv[0], opt[FVERBATIM].b ? -1 : fill ? EMBALL : all ? EMBBASES|EMBTEMPLATES : some ? EMBBASES : 0);
	if (strcmp(dest, "-") == 0)
		putdata(&b, coloured());
	else
		mustwrite(dest, b.s ? b.s : "", b.len, 0644);
	buffree(&b);
	return 0;
}

static int
cmdtmplyq(int argc, char *argv[])
{
	struct buf b = { 0 }, out = { 0 };
	struct ydoc d = { 0 };

	(void)argc;
	templatebuf(&b, argv[0], EMBALL);
	(void)yparse(&d, b.s, b.len);
	xquery(&d, argv[1], &(struct xlook){ .raw = true, .indent = 2 }, false, &out);
	putdata(&out, coloured());
	buffree(&b);
	buffree(&out);
	yfree(&d);
	return 0;
}

static int
cmdtmplurl(int argc, char *argv[])
{
	(void)argc;
	puts(locate(argv[0]));
	return 0;
}

/* limactl-NAME found as a program is the command NAME. */
struct plugin { const char *name, *path, *desc; };
static struct plugin *allplugins(size_t *n);

/* Plugins, and the directories below our prefix that are there; null for none. */
static void
infoplaces(struct ydoc *d, struct ynode *m)
{
	static const struct { const char *key, *dirs[2]; } t[] = {
		{ "libexecPaths", { "libexec/lima", "lib/lima" } }, { "sharePaths", { "share/lima", NULL } },
	};
	struct ynode *s = ynewseq(d), *o;
	struct plugin *pl;
	const char *prefix, *dir, *last;
	size_t n, i, k, w;

	pl = allplugins(&n);
	for (i = 0; i < n; i++) {
		o = ynewmap(d);
		putstr(d, o, "name", pl[i].name);
		putstr(d, o, "path", pl[i].path);
		if (pl[i].desc)
			putstr(d, o, "description", pl[i].desc);
		yappend(d, s, o);
	}
	(void)yput(d, m, "plugins", n ? s : ynewnull(d));
	for (i = 0; i < LEN(t); i++) {
		s = ynewseq(d);
		for (w = 0, last = ""; w < 2; w++) {
			if (!(prefix = parentdir(owndir((int)w))) || strcmp(prefix, last) == 0)
				continue;
			for (k = 0; k < 2; k++)
				if (t[i].dirs[k] && access(dir = keep("%s/%s", prefix, t[i].dirs[k]), F_OK) == 0)
					yappend(d, s, ynewstr(d, dir));
			last = prefix;
		}
		(void)yput(d, m, t[i].key, s->n ? s : ynewnull(d));
	}
}

/* The shares of all instances, by name. */
static void
shareall(struct ydoc *d, struct ynode *o)
{
	struct strs names = allinstances();
	struct ynode *v;
	struct inst in;
	size_t i;

	for (i = 0; i < names.n; i++) {
		if (inspect(&in, names.v[i]) < 0)
			continue;
		if (!in.loaded)
			continue;
		v = instshares(d, &in.conf);
		v->key = ynewstr(d, in.name);   /* yput would look through all before it */
		ylink(o, v);
	}
}

static int
cmdinfo(int argc, char *argv[])
{
	struct ydoc d = { 0 };
	struct buf b = { 0 };
	struct ynode *m, *s, *o;
	struct template t = readtemplate("template:default");
	struct conf c;
	struct templates l;
	const char *why, *accel = accelerator(host.arch, &why);
	struct args block = { 0 };
	size_t i;

	(void)argc;
	(void)argv;
	(void)yparse(&d, "{}", 2);
	m = ynewmap(&d);
	putstr(&d, m, "version", FAKEVERSION);
	s = ynewseq(&d);
	l = listtemplates(true);
	for (i = 0; i < l.n; i++) {
		o = ynewmap(&d);
		putstr(&d, o, "name", l.v[i].name);
		putstr(&d, o, "location", l.v[i].where);
		yappend(&d, s, o);
	}
	(void)yput(&d, m, "templates", s);
	confload(&c, "default", t.text, strlen(t.text), "template:default", false);
	o = ynewmap(&d);
	conftree(&d, o, confkeys, &c);
	(void)yput(&d, m, "defaultTemplate", o);
	putstr(&d, m, "limaHome", host.limahome);
	s = ynewseq(&d);
	yappend(&d, s, ynewstr(&d, "qemu"));
	(void)yput(&d, m, "vmTypes", s);
	o = ynewmap(&d);
	treeput(&d, o, "qemu.location", ynewstr(&d, "internal"));
	(void)yput(&d, m, "vmTypesEx", o);
	o = ynewmap(&d);
	for (i = 0; i < LEN(embeds); i++)
		if (startswith(embeds[i].name, "lima-guestagent."))
			treeput(&d, o, keep("%s.location", embeds[i].name + 16), ynewstr(&d, keep("embedded:%s", embeds[i].name)));
	(void)yput(&d, m, "guestAgents", o);
	s = ynewseq(&d);
	envblock(&block);
	for (i = 0; i < block.n; i++)
		yappend(&d, s, ynewstr(&d, block.v[i]));
	argsfree(&block);
	(void)yput(&d, m, "shellEnvBlock", s);
	putstr(&d, m, "hostOS", "linux");
	putstr(&d, m, "hostArch", host.arch);
	putstr(&d, m, "identityFile", keep("%s/_config/user", host.limahome));
	infoplaces(&d, m);
	o = ynewmap(&d);
	putstr(&d, o, "name", accel);
	putstr(&d, o, "reason", why);
	/* QEMU's own words: only with hardware virtualisation is a VM a boundary */
	(void)yput(&d, o, "securityBoundary", ynewbool(&d, strcmp(accel, "kvm") == 0));
	(void)yput(&d, m, "accelerator", o);
	o = ynewmap(&d);
	shareall(&d, o);
	(void)yput(&d, m, "shares", o);
	d.root = m;
	xquery(&d, opt[FINFOYQ].set ? opt[FINFOYQ].s : ".", &(struct xlook){ .json = true, .raw = true, .indent = 4 }, false, &b);
	putdata(&b, coloured());
	buffree(&b);
	yfree(&d);
	return 0;
}

static int
cmdhostagent(int argc, char *argv[])
{
	(void)argc;
	if (!opt[FSOCKET].set)
		die("socket must be specified (limactl version mismatch?)");
	msg.json = true;
	msg.tty = false;
	if (msg.min > DEBUG)
		msg.min = DEBUG;
	msg.cap = logcap;
	return agentmain(argv[0]);
}

/* Become OpenSSH's server of a directory. */
static void
servessh(const char *dir, bool readonly)
{
	struct args a = { 0 };
	struct buf b = { 0 };
	const char *prog = findhidden(sftpservers);
	int i;

	for (i = 0; i < 2; i++)         /* an agent's sockets do not block */
		(void)fcntl(i, F_SETFL, fcntl(i, F_GETFL) & ~O_NONBLOCK);
	umask(0);                       /* modes are the guest's */
	for (; *dir; dir++)             /* %u and others stand for something */
		bufprintf(&b, "%s%c", *dir == '%' ? "%" : "", *dir);
	arg(&a, "%s", prog ? prog : "sftp-server");
	arg(&a, "-e");
	if (readonly)
		arg(&a, "-R");
	arg(&a, "-d");
	arg(&a, "%s", b.s);
	execv(a.v[0], a.v);
	die("run %s:", a.v[0]);
}

static int
cmdsftp(int argc, char *argv[])
{
	struct fx s = { .readonly = opt[FREADONLY].b, .follow = opt[FFOLLOW].b, .guestuid = geteuid(), .guestgid = getegid() };
	int lock = -1;

	(void)argc;
	if (opt[FGUESTUID].set)
		s.guestuid = s.guestgid = (uid_t)opt[FGUESTUID].n;
	if (opt[FPIDFILE].set)          /* whoever starts the next one finds us by it */
		lock = lockpid(opt[FPIDFILE].s, "server of this mount");
	if (opt[FOPENSSH].b) {
		(void)fcntl(lock, F_SETFD, 0);  /* the lock is the process', whatever it executes, while this is open */
		servessh(argv[0], s.readonly);
	}
	_exit(fxserve(&s, argv[0]));    /* what runs at exit wants calls that are forbidden now */
}

static int
cmdvirtiofsd(int argc, char *argv[])
{
	(void)argc;
	if (opt[FPIDFILE].set)          /* the lock is the process', whatever it executes, while the file is open */
		(void)fcntl(lockpid(opt[FPIDFILE].s, "server of this mount"), F_SETFD, 0);
	servefs(argv[0], opt[FGUESTUID].set ? (uid_t)opt[FGUESTUID].n : geteuid(), opt[FREADONLY].b);
}

/* Remove the cache; with --keep-referred what no instance and no template names. */
static int
cmdprune(int argc, char *argv[])
{
	static const char *const config[] = { "base", "default", "override" };
	const char *top = cachedir();
	struct strs keepers = { 0 };
	struct templates l = { 0 };
	struct buf b = { 0 };
	struct dirent *d;
	bool all;
	DIR *dp;
	size_t i;

	(void)argc;
	(void)argv;
	info("Pruning %s", bq(top));
	if (opt[FKEEPREFERRED].b) {
		l = listtemplates(true);
		for (i = 0; i < l.n; i++) {
			const char *text = templatetext(l.v[i].name);
			referredtext(&keepers, text, strlen(text), 0);
		}
		dp = opendir(host.limahome);
		while (dp && (d = readdir(dp))) {
			b.len = 0;
			if (*d->d_name != '.' && readfile(keep("%s/%s/lima.yaml", host.limahome, d->d_name), &b, templatemax) == 0)
				referredtext(&keepers, b.s, b.len, 0);
		}
		if (dp)
			closedir(dp);
		for (i = 0; i < LEN(config); i++) {
			b.len = 0;
			if (readfile(keep("%s/_config/%s.yaml", host.limahome, config[i]), &b, templatemax) == 0)
				referredtext(&keepers, b.s, b.len, 0);
		}
	}
	all = prunedir(keep("%s/download/by-url-sha256", top), &keepers, false);
	all = prunedir(keep("%s/mmdebstrap", top), &keepers, true) && all;
	if (all && !opt[FKEEPREFERRED].b && rmtree(top) < 0)
		die("remove %s:", top);
	buffree(&b);
	return 0;
}

static int cmdhelp(int argc, char *argv[]);
static int cmdcomplete(int argc, char *argv[]);
static int cmdcompletion(int argc, char *argv[]);

static const struct cmd cmds[] = {
	{ "create",    NULL,     CREATE,   0, 1,  "[FILE.yaml|URL|template:NAME|-|NAME]", "create an instance", cmdcreate },
	{ "start",     NULL,     START,    0, 1,  "[NAME|FILE.yaml|URL|template:NAME|-]", "start an instance, creating it when it is new", cmdstart },
	{ "edit",      NULL,     EDIT,     0, 1,  "[NAME|FILE.yaml]",      "change the configuration of an instance", cmdedit },
	{ "stop",      NULL,     STOP,     0, 1,  "[NAME]",                "shut an instance down", cmdstop },
	{ "shell",     NULL,     SHELL,    0, -1, "NAME [COMMAND...]",     "run a shell or a command in an instance", cmdshell },
	{ "list",      "ls",     LIST,     0, -1, "[NAME...]",             "list instances", cmdlist },
	{ "delete",    "remove rm", DELETE,   1, -1, "NAME...",               "delete instances", cmddelete },
	{ "validate",  NULL,     VALIDATE, 1, -1, "FILE.yaml...",          "check templates", cmdvalidate },
	{ "template",  "tmpl",   NOFLAGS,  0, -1, "",                      "copy, check and look into templates", NULL },
	{ "template copy", NULL, TMPLCOPY, 1, 2,  "TEMPLATE [DEST]",       "copy a template", cmdtmplcopy },
	{ "template validate", NULL, VALIDATE, 1, -1, "TEMPLATE...",       "check templates", cmdvalidate },
	{ "template yq", NULL,   NOFLAGS,  2, 2,  "TEMPLATE EXPRESSION",   "evaluate an expression on a filled template", cmdtmplyq },
	{ "template url", NULL,  NOFLAGS,  1, 1,  "TEMPLATE",              "print what a locator is rewritten to", cmdtmplurl },
	{ "restart",   NULL,     RESTART,  0, 1,  "[NAME]",                "stop an instance and start it again", cmdrestart },
	{ "copy",      "cp",     COPY,     2, -1, "SOURCE... TARGET",      "copy files; NAME:PATH is a file in an instance", cmdcopy },
	{ "tunnel",    NULL,     TUNNEL,   1, 1,  "NAME",                  "a SOCKS proxy into an instance (experimental)", cmdtunnel },
	{ "show-ssh",  NULL,     SHOWSSH,  1, 1,  "NAME",                  "the ssh options of an instance (deprecated)", cmdshowssh },
	{ "protect",   NULL,     NOFLAGS,  1, -1, "NAME...",               "keep instances from being deleted", cmdprotect },
	{ "unprotect", NULL,     NOFLAGS,  1, -1, "NAME...",               "let instances be deleted again", cmdunprotect },
	{ "factory-reset", NULL, NOFLAGS,  0, 1,  "[NAME]",                "remove all but the configuration of an instance", cmdreset },
	{ "clone",     NULL,     CLONE,    2, 2,  "OLD NEW",               "copy a stopped instance", cmdclone },
	{ "rename",    NULL,     CLONE,    2, 2,  "OLD NEW",               "rename a stopped instance", cmdrename },
	{ "prune",     NULL,     PRUNE,    0, 0,  "",                      "remove downloads and built images from the cache", cmdprune },
	{ "snapshot",  NULL,     NOFLAGS,  0, -1, "",                      "keep states of an instance (experimental)", NULL },
	{ "snapshot create", "save", SNAPTAG, 1, 1, "NAME",                "save the state under a tag", cmdsnapcreate },
	{ "snapshot apply",  "load", SNAPTAG, 1, 1, "NAME",                "go back to the state of a tag", cmdsnapapply },
	{ "snapshot delete", "del", SNAPTAG, 1, 1, "NAME",                 "forget the state of a tag", cmdsnapdelete },
	{ "snapshot list",   "ls", SNAPLIST, 1, 1, "NAME",                 "list the saved states", cmdsnaplist },
	{ "disk",      NULL,     NOFLAGS,  0, -1, "",                      "disks that instances attach", NULL },
	{ "disk create", NULL,   DISKCREATE, 1, 1, "DISK",                 "make a disk", cmddiskcreate },
	{ "disk list", "ls",     DISKLIST, 0, -1, "[DISK...]",             "list disks", cmddisklist },
	{ "disk delete", "remove rm", DISKDELETE, 1, -1, "DISK...",        "delete disks", cmddiskdelete },
	{ "disk unlock", NULL,   NOFLAGS,  1, -1, "DISK...",               "free disks of instances that do not run", cmddiskunlock },
	{ "disk resize", NULL,   DISKRESIZE, 1, 1, "DISK",                 "let a disk grow", cmddiskresize },
	{ "disk import", NULL,   NOFLAGS,  2, 2,  "DISK FILE",             "make a disk of an image", cmddiskimport },
	{ "network",   NULL,     NOFLAGS,  0, -1, "",                      "networks that instances may share", NULL },
	{ "network list",   "ls", NETLIST, 0, -1, "[NETWORK...]",          "list networks", cmdnetlist },
	{ "network create", NULL, NETCREATE, 1, 1, "NETWORK",              "add a network to networks.yaml", cmdnetcreate },
	{ "network delete", "remove rm", NETDELETE, 1, -1, "NETWORK...",   "remove networks from networks.yaml", cmdnetdelete },
	{ "autostart", NULL,     NOFLAGS,  0, -1, "",                      "start instances at login", NULL },
	{ "autostart enable",  NULL, AUTOSTART, 1, 1, "NAME",              "start an instance at login", cmdautoenable },
	{ "autostart disable", NULL, AUTOSTART, 1, 1, "NAME",              "no longer start it", cmdautodisable },
	{ "start-at-login", NULL, ATLOGIN, 0, 1,  "[NAME]",                "the same (deprecated)", cmdatlogin },
	{ "watch",     NULL,     WATCH,    0, -1, "[NAME...]",             "show events as they come", cmdwatch },
	{ "screenshot", NULL,    SCREENSHOT, 1, 1, "NAME",                 "not supported with QEMU", cmdscreenshot },
	{ "sudoers",   NULL,     NOFLAGS,  0, -1, "",                      "for macOS only", cmdsenseless },
	{ "guest-install", NULL, NOFLAGS,  0, -1, "[NAME]",                NULL, cmdsenseless },
	{ "usernet",   NULL,     USERNET,  0, -1, "",                      NULL, cmdsenseless },
	{ "debug",     NULL,     NOFLAGS,  0, -1, "",                      NULL, NULL },
	{ "debug dns", NULL,     NOFLAGS,  0, -1, "UDPPORT [TCPPORT]",     NULL, cmdsenseless },
	{ "generate-doc", NULL,  NOFLAGS,  0, -1, "DIR",                   NULL, cmdsenseless },
	{ "generate-jsonschema", NULL, NOFLAGS, 0, -1, "[FILE...]",        NULL, cmdsenseless },
	{ "completion", NULL,    COMPLETE, 0, 1,  "bash|zsh|fish|powershell", "print the completion script of a shell", cmdcompletion },
	{ "__complete", NULL,    RAW,      0, -1, "[WORD...]",             NULL, cmdcomplete },
	{ "__completeNoDesc", NULL, RAW,   0, -1, "[WORD...]",             NULL, cmdcomplete },
	{ "info",      NULL,     INFO_,    0, 0,  "",                      "show what this program and host have", cmdinfo },
	{ "yq",        NULL,     RAW,      0, -1, "[EXPRESSION] [FILE...]", "evaluate an expression on YAML or JSON", cmdyq },
	{ "yq-restrictions", NULL, NOFLAGS, 0, -1, "",                     "what an expression may not do", cmdyqlimits },
	{ "help",      NULL,     HELP,     0, 2,  "[COMMAND]",             "help for a command", cmdhelp },
	{ "hostagent", NULL,     AGENT,    1, 1,  "NAME",                  NULL, cmdhostagent },
	{ "sftp",      NULL,     SFTP,     1, 1,  "DIR",                   NULL, cmdsftp },
	{ "virtiofsd", NULL,     SFTP,     1, 1,  "DIR",                   NULL, cmdvirtiofsd },
};

/* A command by its name or an alias: of a group, or (NULL) of limactl. */
static const struct cmd *
findcmd(const struct cmd *group, const char *word)
{
	size_t i, k, n = group ? strlen(group->name) : 0;
	const char *name, *p;

	for (i = 0; i < LEN(cmds); i++) {
		name = cmds[i].name;
		if (group && (!startswith(name, group->name) || name[n] != ' '))
			continue;
		name += group ? n + 1 : 0;
		if (strcmp(name, word) == 0)
			return &cmds[i];
		for (p = cmds[i].alias; p && (group || !strchr(name, ' ')); p = p[k] ? p + k + 1 : NULL) {
			k = strcspn(p, " ");
			if (strlen(word) == k && strncmp(p, word, k) == 0)
				return &cmds[i];
		}
	}
	return NULL;
}

static void
printflags(uint64_t bits)
{
	int i;

	for (i = 0; i < NFLAG; i++)
		if ((flags[i].cmds & bits) && flags[i].help)
			printf("  %s --%-16s %s\n", flags[i].ch ? keep("-%c,", flags[i].ch) : "   ", flags[i].name, flags[i].help);
}

/* The visible commands of a group, or (NULL) of limactl, a line each. */
static void
printcmds(const struct cmd *group)
{
	size_t i, n = group ? strlen(group->name) + 1 : 0;

	for (i = 0; i < LEN(cmds); i++)
		if (cmds[i].help && (group ? startswith(cmds[i].name, group->name) && cmds[i].name[n - 1] == ' ' : !strchr(cmds[i].name, ' ')))
			printf("  %-14s %s\n", cmds[i].name + n, cmds[i].help);
}

static const char *
useline(const struct cmd *c)
{
	return keep("limactl %s%s%s%s", c->name, c->run ? "" : " COMMAND", *c->args ? " " : "", c->args);
}

/* limactl --help, or the help of one command or group. */
static void
usage(const struct cmd *c)
{
	struct plugin *pl;
	size_t n, i;

	if (!c) {
		puts("limactl: Linux virtual machines\n\nUsage:\n  limactl [flags] COMMAND\n\nCommands:");
		printcmds(NULL);
		pl = allplugins(&n);
		for (i = 0; i < n; i++)
			printf("%s  %-14s %s\n", i ? "" : "\nPlugins:\n", pl[i].name, pl[i].desc ? pl[i].desc : pl[i].path);
		puts("\nFlags:");
		printflags(GLOBAL|HELP);
		puts("\n`limactl COMMAND --help` tells more about a command; limactl(1) tells all.");
		return;
	}
	printf("%s\n\nUsage:\n  %s [flags]\n", c->help ? c->help : "for internal use", useline(c));
	if (c->alias)
		printf("\nAlso called:\n  %s\n", c->alias);
	if (!c->run) {
		puts("\nCommands:");
		printcmds(c);
	}
	if (c->run && c->bit != NOFLAGS) {
		puts("\nFlags:");
		printflags(c->bit);
	}
	puts("\nGlobal flags:");
	printflags(GLOBAL);
}

static _Noreturn void
unknowncmd(const char *name)
{
	struct buf b = { 0 };
	size_t i;

	for (i = 0; i < LEN(cmds); i++)
		if (cmds[i].help && !strchr(cmds[i].name, ' ') && (similar(name, cmds[i].name) || (strcmp(name, "ssh") == 0 && cmds[i].bit == SHELL)))
			bufprintf(&b, "%s\n\t%s", b.len ? "" : "\n\nDid you mean this?", cmds[i].name);
	die("unknown command \"%s\" for \"limactl\"%s", name, b.s ? b.s : "");
}

/* ---- plugins ---- */

static const char *
findplugin(const char *name)
{
	return strchr(name, '/') || startswith(name, "url-") ? NULL : findin(pluginpath(), keep("limactl-%s", name));
}

/* Become the plugin of that name, if there is one. */
static void
runplugin(char *argv[])
{
	const char *path = findplugin(argv[0]);

	if (!path)
		return;
	if (setenv("PATH", pluginpath(), 1) < 0)
		die("setenv PATH:");
	catchsignals(SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	execv(path, argv);
	die("run %s:", path);
}

/* The text between <limactl-desc> and its end in a script; NULL without one. */
static const char *
plugindesc(const char *path)
{
	struct buf b = { 0 };
	const char *p, *end, *r = NULL;
	char head[4096];
	ssize_t n;
	int fd = open(path, O_RDONLY|O_CLOEXEC|O_NONBLOCK);

	if (fd >= 0 && (n = read(fd, head, sizeof head)) > 2 && head[0] == '#' && head[1] == '!') {
		bufadd(&b, head, (size_t)n);
		if ((p = strstr(b.s, "<limactl-desc>")) && (end = strstr(p, "</limactl-desc>")))
			r = keep("%.*s", (int)(end - p) - 14, p + 14);
	}
	if (fd >= 0)
		close(fd);
	buffree(&b);
	return r;
}

static int
plugincmp(const void *a, const void *b)
{
	return strcmp(((const struct plugin *)a)->name, ((const struct plugin *)b)->name);
}

/* All plugins, sorted; *n of them. */
static struct plugin *
allplugins(size_t *n)
{
	struct plugin *v = NULL, *r;
	char *path = keep("%s", pluginpath()), *dir;
	const char *name, *prog;
	struct dirent *d;
	size_t cap = 0, i;
	DIR *dp;

	*n = 0;
	while ((dir = strsep(&path, ":"))) {
		dp = *dir ? opendir(dir) : NULL;
		while (dp && (d = readdir(dp))) {
			if (!startswith(d->d_name, "limactl-") || strcmp(d->d_name, "limactl-static") == 0)
				continue;
			name = keep("%s", d->d_name + 8);
			for (i = 0; i < *n && strcmp(v[i].name, name) != 0; i++)
				;
			if (i < *n || findcmd(NULL, name) || !(prog = findplugin(name)))
				continue;
			if (*n == cap)
				v = xrealloc(v, cap = cap * 2 + 8, sizeof *v);
			v[(*n)++] = (struct plugin){ name, prog, plugindesc(prog) };
		}
		if (dp)
			closedir(dp);
	}
	r = yalloc(&perm, (*n + 1) * sizeof *r);
	if (*n) {
		qsort(v, *n, sizeof *v, plugincmp);
		memcpy(r, v, *n * sizeof *v);
	}
	free(v);
	return r;
}

/* ---- completion ---- */

/* The shell asks `limactl __complete WORD... CURRENT`; candidates come a line
 * each, with a tab and an explanation, and a line with a colon last.  The
 * commands, flags and kinds of arguments are those of the tables. */
static struct {
	const char *cur;        /* the word that is being typed */
	const char *head;       /* what of it stays, as --flag= */
	bool desc;
} comp;

static void
offer(const char *word, const char *desc)
{
	if (startswith(word, comp.cur))
		printf(comp.desc && desc ? "%s%s\t%s\n" : "%s%s\n", comp.head, word, desc);
}

static void
offerwords(const char *words)
{
	char *s = keep("%s", words), *w;

	while ((w = strsep(&s, " ")))
		offer(w, NULL);
}

static void
offerinstances(const char *tail)
{
	struct strs all = allinstances();
	size_t i;

	for (i = 0; i < all.n; i++)
		offer(keep("%s%s", all.v[i], tail), NULL);
}

static void
offernetworks(const char *head)
{
	struct ydoc d = { 0 };
	struct buf b = { 0 };
	const struct ynode *n, *nets;

	if (readfile(networksfile(), &b, 1 << 20) < 0)
		bufputs(&b, defnetworks);
	if (yparse(&d, b.s, b.len) == 0 && (nets = yget(d.root, "networks")))
		for (n = nets->first; n; n = n->next)
			offer(keep("%s%s", head, ykey(n)), NULL);
	buffree(&b);
	yfree(&d);
}

static void
offerdisks(void)
{
	struct strs all = alldisks();
	size_t i;

	for (i = 0; i < all.n; i++)
		offer(all.v[i], NULL);
}

/* Values of a flag. */
static void
offervalues(int id)
{
	static const struct { const char *flag; uint64_t cmds; const char *words; } t[] = {
		{ "cpus", ~0ULL, "1 2 4 8" }, { "memory", ~0ULL, "1 2 4 8 16 32" }, { "disk", ~0ULL, "10 20 50 100 200" },
		{ "mount-type", ~0ULL, "reverse-sshfs 9p virtiofs" }, { "vm-type", ~0ULL, "qemu" },
		{ "containerd", ~0ULL, "user system user+system none" }, { "ssh-port", ~0ULL, "0 60022" },
		{ "shell", ~0ULL, "/bin/bash /bin/sh /bin/zsh /usr/bin/fish" }, { "log-format", ~0ULL, "text json" },
		{ "log-level", ~0ULL, "trace debug info warn error fatal panic" }, { "format", LIST, "table json yaml" },
		{ "format", SHOWSSH, "cmd args options config" }, { "format", DISKCREATE, "qcow2 raw" },
		{ "backend", ~0ULL, "auto scp rsync" }, { "type", TUNNEL, "socks" }, { "condition", ~0ULL, "login" },
		{ "mode", NETCREATE, "user-v2 host shared bridged" },
		{ "set", ~0ULL, ".cpus= .memory= .disk= .mounts= .plain= .containerd.user= .ssh.localPort= .user.shell=" },
	};
	size_t i;

	if (strcmp(flags[id].name, "arch") == 0)
		for (i = 0; i < LEN(archs); i++)
			offer(archs[i].name, NULL);
	else if (strcmp(flags[id].name, "network") == 0)
		offernetworks("lima:");
	else if (strcmp(flags[id].name, "instance") == 0)
		offerinstances("");
	for (i = 0; i < LEN(t); i++)
		if (strcmp(t[i].flag, flags[id].name) == 0 && (flags[id].cmds & t[i].cmds))
			offerwords(t[i].words);
}

/* Arguments of a command, of which n stand there already. */
static void
offerargs(const struct cmd *c, int n)
{
	struct templates l;
	size_t i;

	if ((c->max >= 0 && n >= c->max) || ((c->bit & (SHELL|TUNNEL)) && n))
		return;
	if (c->bit == HELP) {
		for (i = 0; i < LEN(cmds) && !n; i++)
			if (cmds[i].help && !strchr(cmds[i].name, ' '))
				offer(cmds[i].name, cmds[i].help);
	} else if (c->bit == COPY) {
		offerinstances(":");
	} else if (strstr(c->args, "NETWORK")) {
		offernetworks("");
	} else if (strstr(c->args, "DISK")) {
		offerdisks();
	} else if (strstr(c->args, "bash")) {
		offerwords("bash zsh fish powershell");
	} else {
		if (strstr(c->args, "emplate:") || strstr(c->args, "TEMPLATE") || strstr(c->args, "FILE.yaml...")) {
			l = listtemplates(false);
			for (i = 0; i < l.n; i++)
				offer(keep("template:%s", l.v[i].name), NULL);
		}
		if (c->bit != CREATE && (strstr(c->args, "NAME") || (strstr(c->args, "OLD") && !n)))
			offerinstances("");
	}
}

static int
cmdcomplete(int argc, char *argv[])
{
	const struct cmd *c = NULL, *sub;
	struct plugin *pl;
	const char *eq;
	int i, k, id, value = -1, n = 0;
	bool rest = false;
	size_t np;

	comp.desc = strcmp(curcmd->name, "__complete") == 0;
	comp.cur = argc ? argv[argc - 1] : "";
	comp.head = "";
	for (i = 0; i < argc - 1; i++) {
		if (value >= 0) {
			value = -1;
		} else if (!rest && argv[i][0] == '-' && argv[i][1]) {
			uint64_t bits = GLOBAL | (c ? c->bit : HELP);
			rest = strcmp(argv[i], "--") == 0;
			id = flagbyname(argv[i] + 2, strlen(argv[i] + 2), bits);
			if (argv[i][1] != '-')
				for (id = NFLAG - 1; id >= 0 && !((flags[id].cmds & bits) && flags[id].ch == argv[i][strlen(argv[i]) - 1]); id--)
					;
			if (!rest && id >= 0 && flags[id].type != FBOOL)
				value = id;
		} else if (!c || !c->run) {
			if (!(sub = findcmd(c, argv[i])))
				goto out;
			c = sub;
		} else {
			n++;
			rest |= (c->bit & (SHELL|TUNNEL)) != 0;
		}
	}
	if (value >= 0) {
		offervalues(value);
	} else if (!rest && *comp.cur == '-' && (eq = strchr(comp.cur, '='))) {
		id = flagbyname(comp.cur + 2, (size_t)(eq - comp.cur) - 2, GLOBAL | (c ? c->bit : HELP));
		comp.head = keep("%.*s", (int)(eq - comp.cur) + 1, comp.cur);
		comp.cur = eq + 1;
		if (id >= 0 && flags[id].type == FBOOL)
			offerwords("true false");
		else if (id >= 0)
			offervalues(id);
	} else if (!rest && *comp.cur == '-') {
		for (k = 0; k < NFLAG; k++)
			if (flags[k].help && (flags[k].cmds & (GLOBAL | (c ? c->bit : HELP))))
				offer(keep("--%s", flags[k].name), flags[k].help);
	} else if (!c || !c->run) {
		for (k = 0; k < (int)LEN(cmds); k++)
			if (cmds[k].help && findcmd(c, strrchr(cmds[k].name, ' ') ? strrchr(cmds[k].name, ' ') + 1 : cmds[k].name) == &cmds[k])
				offer(strrchr(cmds[k].name, ' ') ? strrchr(cmds[k].name, ' ') + 1 : cmds[k].name, cmds[k].help);
		for (pl = c ? NULL : allplugins(&np); pl && np; np--, pl++)
			offer(pl->name, pl->desc);
	} else
		offerargs(c, n);
out:
	puts(":4");
	return 0;
}

static const struct { const char *shell, *script; } completions[] = {
	{ "bash",
	"# bash completion for limactl: source <(limactl completion bash)\n"
	"_limactl() {\n"
	"	local line=${COMP_LINE:0:COMP_POINT} words cur pre out w\n"
	"	read -ra words <<<\"$line\"\n"
	"	[[ $line == *[[:space:]] ]] && words+=('')\n"
	"	cur=${words[${#words[@]}-1]} pre=\n"
	"	# readline splits words at these, we do not\n"
	"	case $COMP_WORDBREAKS in *[:=]*) pre=${cur%\"${cur##*[:=]}\"} ;; esac\n"
	"	COMPREPLY=()\n"
	"	out=$(\"${words[0]}\" __completeNoDesc \"${words[@]:1}\" 2>/dev/null) || return\n"
	"	while read -r w; do\n"
	"		case $w in :*) ;; *) COMPREPLY+=(\"${w#\"$pre\"}\") ;; esac\n"
	"	done <<<\"$out\"\n"
	"	case ${COMPREPLY[0]-} in *[:=]) compopt -o nospace 2>/dev/null ;; esac\n"
	"}\n"
	"complete -o default -F _limactl limactl" },
	{ "zsh",
	"#compdef limactl\n"
	"# zsh completion for limactl: source <(limactl completion zsh)\n"
	"_limactl() {\n"
	"	local -a out\n"
	"	local line\n"
	"	for line in \"${(@f)$(${words[1]} __complete \"${(@Q)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
	"		[[ -z $line || $line == :* ]] && continue\n"
	"		out+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
	"	done\n"
	"	if (( $#out )); then _describe limactl out; else _files; fi\n"
	"}\n"
	"if [ \"$funcstack[1]\" = _limactl ]; then _limactl \"$@\"; else compdef _limactl limactl; fi" },
	{ "fish",
	"# fish completion for limactl: limactl completion fish | source\n"
	"function __limactl_complete\n"
	"	set -l words (commandline -opc) (commandline -ct)\n"
	"	set -e words[1]\n"
	"	limactl __complete $words 2>/dev/null | string match -v ':*'\n"
	"end\n"
	"function __limactl_nothing\n"
	"	test -z \"$(__limactl_complete)\"\n"
	"end\n"
	"complete -c limactl -f -a '(__limactl_complete)'\n"
	"complete -c limactl -n __limactl_nothing -F" },
	{ "powershell",
	"# PowerShell completion for limactl: limactl completion powershell | Out-String | Invoke-Expression\n"
	"Register-ArgumentCompleter -Native -CommandName limactl -ScriptBlock {\n"
	"	param($word, $ast, $cursor)\n"
	"	$words = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { \"$_\" })\n"
	"	# before 7.3 an empty argument has to be written with its quotes\n"
	"	if (-not $word) { $words += if ($PSVersionTable.PSVersion -lt [version]'7.3') { '\"\"' } else { '' } }\n"
	"	limactl __complete $words 2>$null | Where-Object { $_ -notlike ':*' } | ForEach-Object {\n"
	"		$text, $desc = $_ -split \"`t\", 2\n"
	"		if (-not $desc) { $desc = $text }\n"
	"		[System.Management.Automation.CompletionResult]::new($text, $text, 'ParameterValue', $desc)\n"
	"	}\n"
	"}" },
};

static int
cmdcompletion(int argc, char *argv[])
{
	char *p, *script;
	size_t i;

	if (!argc) {
		usage(curcmd);
		return 0;
	}
	for (i = 0; i < LEN(completions) && strcmp(completions[i].shell, argv[0]) != 0; i++)
		;
	if (i == LEN(completions))
		die("there is no completion for %s, only for bash, zsh, fish and powershell", bq(argv[0]));
	script = keep("%s", completions[i].script);
	while (opt[FNODESC].b && (p = strstr(script, "__complete ")))
		script = keep("%.*sNoDesc%s", (int)(p - script) + 10, script, p + 10);
	puts(script);
	return 0;
}

static int
cmdhelp(int argc, char *argv[])
{
	const struct cmd *c = argc ? findcmd(NULL, argv[0]) : NULL, *sub;

	if (argc && !c)
		unknowncmd(argv[0]);
	if (argc > 1 && !c->run && (sub = findcmd(c, argv[1])))
		c = sub;
	usage(c);
	return 0;
}

/* ---- 35. main ----------------------------------------------------------- */

static void
checkargc(const struct cmd *c, int argc, char *argv[])
{
	const char *why = NULL;

	if (c->max == 0 && argc)
		why = keep("unknown command \"%s\" for \"limactl %s\"", argv[0], c->name);
	else if (c->max < 0 && argc < c->min)
		why = keep("requires at least %d arg(s), only received %d", c->min, argc);
	else if (c->max >= 0 && c->min == c->max && argc != c->min)
		why = keep("accepts %d arg(s), received %d", c->min, argc);
	else if (c->max >= 0 && (argc < c->min || (argc > c->max && c->min)))
		why = keep("accepts between %d and %d arg(s), received %d", c->min, c->max, argc);
	else if (c->max >= 0 && argc > c->max)
		why = keep("accepts at most %d arg(s), received %d", c->max, argc);
	if (why && (startswith(c->name, "snapshot ") || c->bit == USERNET))
		die("%s", why);
	if (why)
		die("`limactl %s` %s.\nSee `limactl %s --help`.\n\nUsage:  %s [flags]\n\n%s",
		    c->name, why, c->name, useline(c), c->help ? c->help : "");
}

/* What a link to limactl stands for: a tool in the guest of an instance or, when
 * the host has it, the host's own one, told by a variable where the engine is. */
static const struct wrap {
	const char *name, *inst, *tool;
	const char *var;                        /* names the host's tool; NULL: never that one */
	const char *env, *scheme, *file;        /* env=scheme DIR file */
	const char *flag;                       /* and its first word */
} wraps[] = {
	{ "lima",           "default",   NULL,        NULL,      NULL, NULL, NULL, NULL },
	{ "nerdctl.lima",   "default",   "nerdctl",   NULL,      NULL, NULL, NULL, NULL },
	{ "apptainer.lima", "apptainer", "apptainer", NULL,      NULL, NULL, NULL, NULL },
	{ "docker.lima",    "docker",    "docker",    "DOCKER",  "DOCKER_HOST", "unix://", "/sock/docker.sock", NULL },
	{ "podman.lima",    "podman",    "podman",    "PODMAN",  "CONTAINER_HOST", "unix://", "/sock/podman.sock", "--remote" },
	{ "kubectl.lima",   "k3s",       "kubectl",   "KUBECTL", "KUBECONFIG", "", "/copied-from-guest/kubeconfig.yaml", NULL },
};
enum { WLIMA, WNERDCTL, WAPPTAINER, WDOCKER, WPODMAN, WKUBECTL };

/* The instance of a tool: it has to be there and to run. */
static const char *
wrapinstance(const struct wrap *w)
{
	const char *name = envor("LIMA_INSTANCE", NULL);
	struct inst in;

	hostinit();
	if (!name && w == &wraps[WKUBECTL]) {
		name = inspect(&in, "k3s") == 0 ? "k3s" : inspect(&in, "k8s") == 0 ? "k8s" : NULL;
		if (!name) {
			fputs("There is no instance k3s or k8s to run kubectl in. Make one of them:\n"
			    "  limactl start --name=k3s template:k3s\n  limactl start --name=k8s template:k8s\n"
			    "or name another one in LIMA_INSTANCE.\n", stderr);
			exit(1);
		}
	}
	name = name ? name : w->inst;
	if (badname(name) || (inspect(&in, name) < 0 && errno == ENOENT)) {
		fprintf(stderr, "instance \"%s\" does not exist, run `limactl create --name=%s template:%s` to create a new instance\n", name, name, w->inst);
		exit(1);
	}
	if (in.state != SRUNNING) {
		fprintf(stderr, "instance \"%s\" is not running, run `limactl start %s` to start the existing instance\n", name, name);
		exit(1);
	}
	return name;
}

/* Become the host's own tool, if there is one. */
static void
hosttool(const struct wrap *w, const char *name, char *argv[])
{
	const char *prog = findprog(envor(w->var, w->tool));
	char **v, **p;

	if (!prog)
		return;
	for (p = argv; *p; p++)
		;
	v = yalloc(&perm, (size_t)(p - argv + 2) * sizeof *v);
	p = v;
	*p++ = *argv++;
	if (w->flag)
		*p++ = keep("%s", w->flag);
	while ((*p++ = *argv++))
		;
	if (setenv(w->env, keep("%s%s%s", w->scheme, instdir(name), w->file), 1) < 0)
		die("setenv %s:", w->env);
	execv(prog, v);
	die("run %s:", prog);
}

/* Started as one of them: the words of the limactl call it stands for. */
static char **
wrapper(const char *base, int *argc, char *argv[])
{
	const struct wrap *w = wraps;
	const char *inst, *limactl = envor("LIMACTL", NULL);
	char **v = yalloc(&perm, ((size_t)*argc + 16) * sizeof *v);
	int k, n = 0;

	while (w < wraps + LEN(wraps) && strcmp(w->name, base) != 0)
		w++;
	if (w == wraps + LEN(wraps))
		return argv;
	if (w == wraps && *argc == 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0)) {
		puts("Usage: lima [COMMAND...]\n\n"
		    "Run COMMAND, or a login shell, in the instance $LIMA_INSTANCE (default: default).\n"
		    "lima is `limactl shell --instance $LIMA_INSTANCE`; $LIMA_SHELL and $LIMA_WORKDIR\n"
		    "give its --shell and --workdir, $LIMACTL another limactl.");
		exit(0);
	}
	inst = w <= &wraps[WNERDCTL] ? envor("LIMA_INSTANCE", w->inst) : wrapinstance(w);
	if (w->var)
		hosttool(w, inst, argv);
	v[n++] = keep("%s", limactl ? limactl : argv[0]);
	if (w == wraps && *argc == 2 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "--version") == 0)) {
		v[n++] = keep("-v");
	} else {
		v[n++] = keep("shell");
		if (w == &wraps[WNERDCTL])
			v[n++] = keep("--preserve-env");
		if (w != &wraps[WNERDCTL] && envor("LIMA_WORKDIR", NULL)) {
			v[n++] = keep("--workdir");
			v[n++] = keep("%s", getenv("LIMA_WORKDIR"));
		}
		if (w != &wraps[WNERDCTL] && envor("LIMA_SHELL", NULL)) {
			v[n++] = keep("--shell");
			v[n++] = keep("%s", getenv("LIMA_SHELL"));
		}
		if (w != &wraps[WNERDCTL])
			v[n++] = keep("--instance");
		v[n++] = keep("%s", inst);
		if (w == &wraps[WAPPTAINER])
			v[n++] = keep("APPTAINER_BINDPATH=%s,%s", envor("APPTAINER_BINDPATH", ""), host.home ? host.home : "");
		if (w == &wraps[WKUBECTL])
			v[n++] = keep("sudo");
		if (w->tool)
			v[n++] = keep("%s", w->tool);
		for (k = 1; k < *argc; k++)
			v[n++] = keep("%s", argv[k]);
	}
	v[n] = NULL;
	*argc = n;
	if (limactl) {
		execvp(limactl, v);
		die("run %s:", limactl);
	}
	return v;
}

int
main(int argc, char *argv[])
{
	static char errbuf[8192], outbuf[65536];
	const struct cmd *c;
	const char *base, *s;
	int fd, r;

	/* no socket of ours may become a child's stdin */
	while ((fd = open("/dev/null", O_RDWR|O_CLOEXEC)) >= 0 && fd <= 2)
		(void)fcntl(fd, F_SETFD, 0);
	if (fd > 2)
		close(fd);
	setvbuf(stderr, errbuf, _IOLBF, sizeof errbuf);
	if (!isatty(1))
		setvbuf(stdout, outbuf, _IOFBF, sizeof outbuf);
	msg.t0 = now();
	s = getenv("TERM");
	msg.tty = isatty(2) && !(s && strcmp(s, "dumb") == 0);
	msg.mono = envor("NO_COLOR", NULL) != NULL;     /* no-color.org */
	base = argc ? argv[0] : "limactl";
	base = strrchr(base, '/') ? strrchr(base, '/') + 1 : base;
	host.argv0 = argc ? argv[0] : NULL;
	if (strncmp(base, "yq", strcspn(base, ".")) == 0 && strcspn(base, ".") == 2)
		return flushed(cmdyq(argc - 1, argv + 1));
	if (argc)
		argv = wrapper(base, &argc, argv);
	msg.nopipe = signal(SIGPIPE, SIG_IGN) == SIG_IGN;
	atexit(rmscratch);
	catchsignals(onsignal);
	opt[FTTY].b = isatty(1);
	argv++;
	argc = argc ? argc - 1 : 0;
	c = parseargs(&argc, argv);
	globalflags();
	r = 0;
	if (opt[FVERSION].b)
		puts("limactl version " FAKEVERSION);
	else if (!c || !c->run || opt[FHELP].b)
		usage(c);
	else {
		if ((c->bit & (CLONE|EDIT)) && opt[FYES].set)
			warn("--yes flag is deprecated (--tty=false is still supported and works in the same way. Also consider using --start)");
		checkargc(c, argc, argv);
		if (c->run != cmdyq)
			hostinit();
		curcmd = c;
		r = c->run(argc, argv);
	}
	return flushed(r);
}
