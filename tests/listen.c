/* listen tcp|udp ADDRESS PORT... - hold these ports until killed
 *
 * TCP ones are never accepted from.  Says "ready" when all are there. */
#include <sys/socket.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
main(int argc, char *argv[])
{
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in a4 = { .sin_family = AF_INET };
	int i, v6, fd, on = 1, type;

	if (argc < 4)
		return 2;
	type = strcmp(argv[1], "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
	v6 = strchr(argv[2], ':') != NULL;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, argv[2], v6 ? (void *)&a6.sin6_addr : (void *)&a4.sin_addr) != 1)
		return 2;
	for (i = 3; i < argc; i++) {
		a6.sin6_port = a4.sin_port = htons((unsigned short)strtol(argv[i], NULL, 10));
		fd = socket(v6 ? AF_INET6 : AF_INET, type, 0);
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (fd < 0 || bind(fd, v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4, v6 ? sizeof a6 : sizeof a4) < 0 ||
		    (type == SOCK_STREAM && listen(fd, 128) < 0)) {
			perror(argv[i]);
			return 1;
		}
	}
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
