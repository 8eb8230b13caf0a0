# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# copy, show-ssh and tunnel: what scp, rsync and ssh are told, played by fakes.

# teller NAME STATUS: a program that writes down its words
teller() {
	printf '#!/bin/sh\nprintf "%%s\\n" "$@" >"%s/argv.%s"\nexit %s\n' "$fakes" "$1" "$2" >"$fakes/$1"
	chmod +x "$fakes/$1"
}
# rsynced A B WORDS...: copy --backend=rsync -r A B gives rsync these two last words
rsynced() {
	rm -f "$fakes/argv.rsync"
	lc copy --backend=rsync -r "$1" "$2"
	status 0
	noout
	same "$(tail -n 2 "$fakes/argv.rsync" | tr '\n' ' ')" "$3 $4 "
}

test_scp() {
	begin scp
	buildfakes
	PATH=$fakes:$realpath
	for v in one two; do mk "$v"; status 0; done
	teller scp 0
	printf '#!/bin/sh\n[ "$1" = --version ] && { echo "rsync  version 3.2.7  protocol version 31"; exit; }
printf "%%s\\n" "$@" >"%s/argv.rsync"\n' "$fakes" >"$fakes/rsync"
	chmod +x "$fakes/rsync"
	plan "$goodboot"

	lc copy one:/a
	fatalhas '`limactl copy` requires at least 2 arg(s), only received 1.'
	lc copy --backend=ftp one:/a b
	fatal 'invalid backend `ftp`, must be one of: scp, rsync, auto'
	lc copy nope:/a b
	fatal 'instance `nope` does not exist, run `limactl create nope` to create a new instance'
	lc cp one:/a b
	fatal 'instance `one` is stopped, run `limactl start one` to start the instance'
	lc copy one:/a nope:b
	status 1
	ok 'copy: what is refused'

	lc start one
	status 0
	lc cp --backend=scp one:/etc/hostname out
	status 0
	noout
	noerr
	same "$(tr '\n' ' ' <"$fakes/argv.scp")" "-F $LIMA_HOME/one/ssh.config -o ControlMaster=no -q -3 -- lima-one:/etc/hostname out "
	ok 'scp from an instance'
	lc cp --backend=scp -rv 'a b' -- -x one:
	status 0
	same "$(tr '\n' '|' <"$fakes/argv.scp")" "-F|$LIMA_HOME/one/ssh.config|-o|ControlMaster=no|-v|-r|-3|--|a b|-x|lima-one:|"
	ok 'scp -r -v of several, one of them like a flag'
	lc --debug cp --backend=scp one:a b
	holds grep -qx -e -v "$fakes/argv.scp"
	ok '--debug makes copy verbose'
	teller scp 7
	lc cp --backend=scp one:a b
	status 7
	noout
	noerr
	ok "scp's exit status, and nothing said"
	teller scp 0

	lc cp one:a b
	status 0
	noerr
	same "$(tail -n 4 "$fakes/argv.rsync" | tr '\n' '|')" "'ssh' '-F' '$LIMA_HOME/one/ssh.config' '-o' 'ControlMaster=no'|--|lima-one:a|b|"
	same "$(head -n 2 "$fakes/argv.rsync" | tr '\n' ' ')" '-a -q '
	ok 'auto: rsync where both sides have it'
	SSH='s\sh -x "it'"'"'s"' lc cp --backend=rsync one:a b
	holds grep -qxF "'ssh' '-x' 'it''s' '-F' '$LIMA_HOME/one/ssh.config' '-o' 'ControlMaster=no'" "$fakes/argv.rsync"
	ok 'rsync -e: words with blanks and quotes'
	lc cp -v --backend=rsync one:a b
	same "$(head -n 3 "$fakes/argv.rsync" | tr '\n' ' ')" '-a -v --progress '
	ok 'rsync -v'
	: >"$fakes/norsync"
	rm -f "$fakes/argv.scp"
	lc cp one:a b
	status 0
	holds test -e "$fakes/argv.scp"
	lc cp --backend=rsync one:a b
	fatal 'rsync not available on guest(s)'
	rm "$fakes/norsync"
	ok 'a guest without rsync: auto takes scp, rsync is refused'
	rm -f "$fakes/argv.scp"
	lc cp --backend=auto one:/a one:/b
	status 0
	same "$(tail -n 2 "$fakes/argv.scp" | tr '\n' ' ')" 'lima-one:/a lima-one:/b '
	ok 'auto: scp when two words are remote'

	rsynced dir one:/x/new dir/ lima-one:/x/new/
	rsynced dir/ one:/x/new dir lima-one:/x/new/
	rsynced dir one:/x/new/ dir lima-one:/x/new/
	rsynced dir/ one:/x/new/ dir lima-one:/x/new/
	ok 'rsync -r to a guest: all slashes'
	rsynced one:/x/dir out lima-one:/x/dir/ out/
	rsynced one:/x/dir/ out lima-one:/x/dir/ out/
	rsynced one:/x/dir/ out/ lima-one:/x/dir/ out/
	rsynced one:/x/dir out/ lima-one:/x/dir/ out
	rsynced dir one: dir/ lima-one:./
	ok 'rsync -r from a guest: all slashes'
	printf '#!/bin/sh\n[ "$1" = --version ] && { echo "rsync  version 3.1.3  protocol version 31"; exit; }
printf "%%s\\n" "$@" >"%s/argv.rsync"\n' "$fakes" >"$fakes/rsync"
	lc cp --backend=rsync "one:~/a b'c*" out
	holds grep -qxF "lima-one:~/a\\ b\\'c*" "$fakes/argv.rsync"
	ok 'an old rsync gets its path quoted'

	plan "$goodboot"
	lc start two
	status 0
	printf '#!/bin/sh\nfor w; do case $w in */copy.*.tmp) cat "$w" ;; esac; done >"%s/joined"\nexit 3\n' "$fakes" >"$fakes/scp"
	lc cp one:/a two:/b
	status 3
	noerr
	same "$(grep -c '^Host lima-' "$fakes/joined")" 2
	same "$(find "$LIMA_HOME" -name 'copy.*' | wc -l)" 0
	ok 'from one instance to another: a Host block each, nothing left'
	lc stop two
	status 0
	rm -f "$fakes/scp" "$fakes/rsync"

	# show-ssh
	lc show-ssh nope
	fatal 'instance `nope` does not exist, run `limactl create nope` to create a new instance'
	lc show-ssh --format=x one
	status 1
	errhas 'unknown format: `x`'
	ok 'show-ssh: what is refused'
	port=$(field one SSHLocalPort)
	lc show-ssh one
	status 0
	logged warning "\`limactl show-ssh\` is deprecated. Instead, use \`ssh -F $LIMA_HOME/one/ssh.config lima-one\`."
	outre "^ssh -o 'IdentityFile=\"$LIMA_HOME/_config/user\"' -o StrictHostKeyChecking=yes .* -o Hostname=127.0.0.1 -o Port=$port lima-one\$"
	lc show-ssh -f args one
	outre "^-o 'IdentityFile.* -o Port=$port\$"
	lc show-ssh -f options one
	holds grep -qx "Port=$port" "$out"
	same "$(head -n 1 "$out")" "IdentityFile=\"$LIMA_HOME/_config/user\""
	lc show-ssh --format=config one
	sed 1,3d "$LIMA_HOME/one/ssh.config" >"$T/config"
	holds cmp "$T/config" "$out"
	ok 'show-ssh: cmd, args, options, config'
	mv "$LIMA_HOME/_config/user" "$LIMA_HOME/_config/away"
	lc show-ssh -f x one
	status 1
	errhas "stat $LIMA_HOME/_config/user: no such file or directory"
	mv "$LIMA_HOME/_config/away" "$LIMA_HOME/_config/user"
	ok 'show-ssh without the key'

	# tunnel
	lc tunnel --type=vpn one
	status 1
	errhas 'unknown tunnel type: `vpn`'
	lc tunnel --socks-port=80 one
	status 1
	errhas 'invalid socks port 80'
	lc tunnel two
	status 1
	errhas 'instance `two` is stopped'
	ok 'tunnel: what is refused'
	: >"$fakes/background"
	lc tunnel --socks-port=10800 one
	status 0
	logged warning '`limactl tunnel` is experimental'
	outis 'Set `ALL_PROXY=socks5h://127.0.0.1:10800`, etc.
The instance can be connected from the host as <http://lima-one.internal> via a web browser.'
	for f in -q -f -N -D 127.0.0.1:10800 -p "$port" ExitOnForwardFailure=yes; do
		holds grep -qxF -e "$f" "$fakes/argv.ssh"
	done
	fails grep -q ControlPath= "$fakes/argv.ssh"
	ok 'tunnel: an ssh of its own with -D'
	: >"$fakes/sshfail"
	lc tunnel one
	status 255
	noout
	rm "$fakes/sshfail" "$fakes/background"
	ok "tunnel: ssh's status"

	lc delete -f one two
	status 0
	finish
}
