# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# The guest agent as a program: it reads this host's listeners as it would a guest's.

# listening LINE: it is one of those the agent prints
listening() { "$agent" -1 | grep -qxF -- "$1"; }

# alike: the one for aarch64 says what ours says
alike() {
	"$agent" -1 >"$T/native" && qemu-aarch64-static ./lima-guestagent.aarch64 -1 >"$out" && cmp "$T/native" "$out"
}

test_guestagent() {
	begin guestagent
	agent=$PWD/lima-guestagent.$(uname -m)
	if [ ! -s "$agent" ]; then
		skip 'guest agent' "no compiler for $(uname -m)"
		finish
		return
	fi
	for f in ./lima-guestagent.*; do
		[ ! -s "$f" ] || [ "$(stat -c %s "$f")" -lt 40000 ] || bad "$f: $(stat -c %s "$f") bytes"
	done
	ok 'each is smaller than 40 KB'

	run "$agent"
	[ "$rc" = 1 ] || bad "status $rc"
	holds grep -q '^usage: ' "$err"
	ok 'usage'
	run "$agent" -1
	[ "$rc" = 0 ] || bad "status $rc"
	fails grep -qvE '^\+ (tcp|udp) [0-9a-f.:]+ [0-9]+$' "$out"
	ok 'lines of a fixed shape'

	"${CC:-cc}" -o "$T/listen" tests/listen.c || { bad 'cannot build tests/listen.c'; ok listen; finish; return; }
	port=$((20000 + $$ % 10000))
	for l in tcp/127.0.0.1 udp/127.0.0.1 tcp/0.0.0.0 tcp/::1 udp/::; do
		"$T/listen" "${l%/*}" "${l#*/}" $port >"$T/ready" 2>"$err" &
		pid=$!
		await 5 grep -q . "$T/ready" "$err" || bad 'no listener'
		if grep -q 'not supported\|assign' "$err"; then
			skip "$l" 'no IPv6 here'
			continue
		fi
		holds listening "+ ${l%/*} ${l#*/} $port"
		kill $pid
		wait $pid || :
		fails listening "+ ${l%/*} ${l#*/} $port"
		ok "a listener is seen, and its end: $l"
	done
	if have qemu-aarch64-static && [ -s lima-guestagent.aarch64 ]; then
		await 10 alike || bad 'another answer'
		ok 'the one for aarch64 says the same'
	fi
	finish
}
