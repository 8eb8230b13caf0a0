# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# unit-sftp.sh - limactl sftp, asked by tests/sftp.c with raw requests

# fx [FLAGS...] WORDS: send the script, the answers but the first in $out
fx() {
	script=
	for a; do script=$a; done
	set -- "$@" "$S"
	flags=
	for a; do
		case $a in --*) flags="$flags $a" ;; esac
	done
	printf '%s\n' "$script" >"$T/in"
	input=$T/in
	# shellcheck disable=SC2086
	run "$T/rawsftp" "$LIMACTL" sftp $flags "$S"
	status 0
	sed -i 1d "$out"
}
# answers LINES: of fx, each as given, where a * stands for anything
answers() {
	printf '%s\n' "$1" >"$T/want"
	: >"$T/diff"
	i=0
	while IFS= read -r want <&3; do
		i=$((i + 1))
		got=$(sed -n "${i}p" "$out")
		# shellcheck disable=SC2254
		case $got in
		$want) ;;
		*) bad "answer $i to '$(sed -n "${i}p" "$T/in")' is '$got', not '$want'" ;;
		esac
	done 3<"$T/want"
	same "$(wc -l <"$out")" "$i"
}
# outside: what lies beside the share is as it was
outside() {
	same "$(cat "$O/secret")" 'do not read'
	same "$(stat -c '%a %Y %s' "$O/secret")" '600 1000000000 12'
	same "$(ls "$O")" 'secret
sub'
	same "$(ls "$O/sub")" 'file'
	same "$(stat -c '%a %Y' "$O/sub")" '755 1000000000'
}

test_sftp() {
	begin sftp
	${CC:-cc} -O1 -w -o "$T/rawsftp" tests/sftp.c || { bad 'tests/sftp.c does not compile'; ok 'the client'; return; }
	O=$HOME/o S=$HOME/s
	mkdir -p "$O/sub" "$S/dir/deep"
	echo 'do not read' >"$O/secret"
	echo x >"$O/sub/file"
	chmod 600 "$O/secret"
	touch -d @1000000000 "$O/secret" "$O/sub"
	echo hello >"$S/file"
	echo other >"$S/dir/other"
	chmod 640 "$S/file"
	touch -d @1234567890 "$S/file"
	ln -s ../o/secret "$S/out"
	ln -s "$O/secret" "$S/absout"
	ln -s ../o "$S/outdir"
	ln -s / "$S/root"
	ln -s file "$S/in"
	ln -s dir "$S/indir"
	ln -s nowhere "$S/dangling"
	ln -s /proc/self/root "$S/magic"
	mkfifo "$S/fifo"

	run sh -c "printf '' | '$T/rawsftp' '$LIMACTL' sftp '$S'"
	outis 'version 3 posix-rename@openssh.com 1 hardlink@openssh.com 1 fsync@openssh.com 1 statvfs@openssh.com 2'
	fx 'stat file
lstat /file
lstat in
stat in
open file r
read 0 0 100
read 0 3 2
read 0 6 10
fstat 0
close 0
read 0 0 1
readlink absout
statvfs /
lstat nothing
open dir r
open fifo r
open fifo w
realpath .
realpath ../../x/./y/../z'
	answers '100640 * size 6 mtime 1234567890
100640 * size 6 mtime 1234567890
120777 * size 4 mtime *
100640 * size 6 mtime 1234567890
handle 0
data hello|
data lo
eof
100640 * size 6 mtime 1234567890
ok
status 4
path '"$O/secret"'
statvfs bsize * flag 0
status 2
status 4
status 8
status 8
path /
path /x/z'
	ok 'files are read; a fifo blocks nothing'

	fx 'open new wce 600
write 0 0 abc
write 0 5 xyz
ftruncate 0 7
fchmod 0 644
fsync 0
close 0
open new wce
mkdir d 700
mkdir d
mkdir d/e
rename new d/e/new
rename file d/e/new
posixrename file d/e/new
link d/e/new d/again
symlink file d/link
readlink d/link
utime d/link 1 2
lstat d/link
chmod d/link 600
chmod d/again 6640
chmod d 2755
utime d/again 1000 2000
truncate d/again 3
stat d/e/new
rmdir d
remove d/e
open d/e/new rw
read 0 0 9
write 1 1 LL
read 1 0 9
open d/e/new wa
write 2 0 +
close 2
stat d/e/new
remove d/e/new
remove d/again
remove d/link
rmdir d/e
rmdir d
open dir/%c3%a4%20b%22%27%0a wc
lstat dir/%c3%a4%20b%22%27%0a'
	answers 'handle 0
ok
ok
ok
ok
ok
ok
status 4
ok
status 4
ok
ok
status 4
ok
ok
ok
path file
ok
120777 * mtime 2
status 8
ok
ok
ok
ok
100640 * size 3 mtime *
status 4
status 4
handle 1
status 4
ok
data hLL
handle 2
ok
ok
100640 * size 4 mtime *
ok
ok
ok
ok
ok
handle 3
100644 * size 0 mtime *'
	holds test -e "$S/dir/ä b\"'
"
	rm -f "$S/dir/ä b"*
	echo hello >"$S/file"
	ok 'files and directories are made, changed, moved and removed'

	# everything that names something outside, and each way to get there
	for p in ../o/secret ../../../../../../etc/passwd dir/../../o/secret out absout outdir/secret outdir/sub/file \
		root/etc/passwd indir/../../o/secret magic/etc/passwd dir/deep/../../../o/secret; do
		fx "stat $p
open $p r
open $p rw
open $p wt
truncate $p 0
link $p stolen
rename $p stolen
posixrename $p stolen
rename file $p.x
posixrename file $p.x
link file $p.x
symlink x $p.x
mkdir $p.x
open $p.x wc"
		sed -n '1,5p' "$out" | grep -qv '^status' && bad "$p: $(cat "$out")"
		case $p in
		out | absout) ;;        # the link itself may be linked and moved, and out.x made
		*) if grep -qv '^status' "$out"; then bad "$p: $(cat "$out")"; fi ;;
		esac
		rm -rf "$S/stolen" "$S"/*.x
		[ -e "$S/file" ] || echo hello >"$S/file"
		ln -sfn ../o/secret "$S/out"
		ln -sfn "$O/secret" "$S/absout"
		outside
	done
	for p in ../o/secret ../o/sub dir/../../o/secret outdir/secret outdir/sub root/tmp magic/tmp .. ../o dir/../..; do
		fx "lstat $p
chmod $p 777
chown $p 1 1
utime $p 5 5
remove $p
rmdir $p
opendir $p
readlink $p
statvfs $p"
		if grep -qv '^status' "$out"; then bad "$p: $(cat "$out")"; fi
		outside
	done
	fx 'open /etc/passwd r
stat /../../etc
opendir /
readdir 0'
	[ "$(sed -n 1p "$out")$(sed -n 2p "$out")" = 'status 2status 3' ] || bad "absolute: $(head -n 2 "$out")"
	same "$(sed -n 's/^name \.\. //p' "$out")" "$(sed -n 's/^name \. //p' "$out")"
	ok '.., absolute paths and links lead to nothing outside, and nothing there changes'

	fx "symlink $O/secret evil
symlink ../o evildir
symlink / evilroot
readlink evil
open evil r
open evil wt
stat evildir/secret
open evildir/new wc
mkdir evilroot/tmp/lt-evil
chmod evil 777
opendir evildir
mkdir a
mkdir a/b
symlink ../../o a/b/l
rename a/b b
open b/l/secret r
lstat b/l"
	answers "ok
ok
ok
path $O/secret
status 2
status 2
status 3
status 3
status 3
status 8
status 3
ok
ok
ok
ok
status 3
120777 *"
	fx --follow-symlinks 'open in r
stat indir/other
open evil r
open evil wt
truncate evil 0
chmod evil 777
utime evildir 5 5
opendir evilroot
open b/l/secret r'
	answers 'handle 0
100644 *
status 3
status 3
status 3
status 3
status 3
status 3
status 3'
	outside
	rm -rf "$S"/evil* "$S/a" "$S/b"
	ok 'nor do links that the guest makes, with --follow-symlinks too'

	before=$(cd "$S" && find . -printf '%p %m %s %T@ %U %n\n' | sort)
	fx --read-only 'open file r
open file w
open file rw
open file wt
open file wa
open new wc
open file rc
open file rt
write 0 0 x
fchmod 0 777
ftruncate 0 0
chmod file 777
chown file 1 1
utime file 1 1
truncate file 0
remove file
mkdir new
rmdir dir/deep
rename file new
posixrename file new
link file new
symlink x new
raw 0900000063000000046c696e6b00000000
read 0 0 9
statvfs /'
	same "$(grep -c '^status 3$' "$out")" 22
	outhas 'data hello|'
	outhas ' flag 1'
	same "$(cd "$S" && find . -printf '%p %m %s %T@ %U %n\n' | sort)" "$before"
	ok 'on a read-only share every change is refused, and reading works'

	me=$uid:$(id -g)
	fx --guest-uid=4321 'lstat file
chown file 4321 4321
lstat file
chown file 4294967295 4294967295
open made wc
fstat 0'
	answers '100644 4321:4321 *
ok
100644 4321:4321 *
ok
handle 0
100644 4321:4321 *'
	same "$(stat -c %u:%g "$S/file")" "$me"
	same "$(stat -c %u:%g "$S/made")" "$me"
	if [ "$uid" != 0 ]; then
		fx --guest-uid=4321 'chown file 0 0'
		answers 'status 3'
	else
		chown 77:78 "$S/made"
		fx --guest-uid=4321 'lstat made'
		answers '100644 77:78 *'
	fi
	rm -f "$S/made"
	ok "the host user's files are the guest user's, and back"

	i=0
	while [ $i -lt 3000 ]; do i=$((i + 1)); : >"$S/dir/deep/file$i"; done
	fx 'opendir dir/deep
readdir 0
close 0
flood 20000 file'
	same "$(grep -c '^name file' "$out")" 3000
	same "$(sed -n 's/^name \([^ ]*\).*/\1/p' "$out" | sort -u | wc -l)" 3002
	same "$(tail -n 1 "$out")" '20000 answers'
	rm -rf "$S/dir/deep"
	mkdir "$S/dir/deep"
	ok 'large directories, and many requests at once'

	# open with a path that says more than there is, a NUL in a path, no path,
	# a wrong handle, read of 4 GiB, write at the end of the world, no type known
	long=$(printf '%05000d' 0)
	fx "raw 11000000010000ffff61
raw 1100000002000000036100621
raw 1100000003
raw 11
raw 04000000040000000800000000deadbeef
raw 0400000005000000046c696d61
open file r
read 0 0 4294967295
read 0 18446744073709551615 10
open file rw
write 1 18446744073709551615 x
write 1 9223372036854775807 x
ftruncate 1 18446744073709551615
readdir 0
raw ee00000006
raw c80000000700000003616263
raw c8000000080000ffff616263
stat $long
stat dir/$long
mkdir .
mkdir dir/..
remove /
rmdir /
rename / x
raw 0900000009000000046669
lstat file
eof"
	answers 'status 5
status 5
status 5
answer to 0*
status 4
status 4
handle 0
data hello|
status 4
handle 1
status 4
status 4
status 4
status 4
status 8
status 8
status 5
status 2
status 2
status 4
status 4
status 4
status 4
status 4
status 5
100644 *
exit 0'
	ok 'requests that are broken get an error and harm nothing'
	for b in 7fffffff 00000000 00040001; do
		fx "stat file
bytes $b
eof"
		answers '100644 *
exit 1'
		errhas 'this is not SFTP'
	done
	ok 'a packet of a length that cannot be ends the server'

	if [ -d /proc/self/fd ]; then
		script=$(i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo 'open file r'; done; echo 'stat file'; echo 'close 3'; echo 'open file r')
		printf '%s\n' "$script" >"$T/in"
		input=$T/in
		run "$T/rawsftp" sh -c 'ulimit -n 40; exec "$@"' sh "$LIMACTL" sftp "$S"
		[ "$(grep -c '^status' "$out")" -gt 10 ] || bad 'descriptors are not bounded'
		same "$(tail -n 1 "$out" | cut -d ' ' -f 1)" handle
		ok 'without descriptors requests fail, and work again after a close'
	fi

	mkdir "$S/gone"
	{ echo 'stat .'; await 5 test -e "$T/removed"; echo 'stat x'; echo eof; } | "$T/rawsftp" "$LIMACTL" sftp "$S/gone" >"$out" 2>"$err" &
	w=$!
	await 5 grep -q '^40' "$out"
	rmdir "$S/gone"
	: >"$T/removed"
	wait $w
	same "$(tail -n 1 "$out")" 'exit 1'
	errhas 'was removed'
	lc sftp "$S/gone"
	fatalhas "share $S/gone: no such file or directory"
	lc sftp "$S/file"
	fatalhas "share $S/file: not a directory"
	ok 'a share that is removed ends the server'

	# the second and third line: what the process can do without its checks
	{ await 5 test -e "$T/seen"; echo eof; } | "$T/rawsftp" "$LIMACTL" sftp --pidfile "$T/pid" "$S" >"$out" 2>"$err" &
	w=$!
	await 5 grep -q '^version' "$out"
	p=$(cat "$T/pid")
	same "$(sed -n 's/^Seccomp:[[:space:]]*//p' "/proc/$p/status")" 2
	same "$(sed -n 's/^NoNewPrivs:[[:space:]]*//p' "/proc/$p/status")" 1
	lc sftp --pidfile "$T/pid" "$S"
	fatalhas "may already be running with pid $p"
	: >"$T/seen"
	wait $w
	ok 'it runs under seccomp, and once'
	rm -rf "$O" "$S"
	finish
}
