# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# Expressions: limactl yq, --set, the flags that edit lima.yaml, edit, list --yq.

# each line: input ^ expression ^ what limactl yq prints; ~~ is a line end
test_expr() {
	begin expr
	cd "$HOME" || exit
	while IFS='^' read -r in e want; do
		[ -n "$e" ] || continue
		printf '%s' "$in" | sed 's/~~/\n/g' >"$T/in.yaml"
		run "$LIMACTL" yq "$(printf %s "$e" | sed 's/~~/\n/g')" "$T/in.yaml"
		want=$(printf %s "$want" | sed 's/~~/\n/g')
		case $want in
		Error:*)
			status 1
			noout
			errhas "$want" ;;
		*)
			status 0
			noerr
			outis "$want" ;;
		esac
		ok "$e"
	done <<'TABLE'
a: 1  # c^.cpus = 2 | .memory = "2GiB"^a: 1  # c~~cpus: 2~~memory: 2GiB
a: 1^.user.passwordlessSudo = false^a: 1~~user:~~  passwordlessSudo: false
ssh:~~  overVsock: true^.ssh.overVsock=null^ssh:~~  overVsock: null
a: 1^.additionalDisks += [{"name":"data"}]^a: 1~~additionalDisks:~~- name: data
mounts:~~- location: "~"~~b: 1^.mounts=[{"location":"/some/dir", "writable":true}]^mounts:~~- location: /some/dir~~  writable: true~~b: 1
param:~~  url: x^.param.url="https://a.b/c"|.param.token="t"^param:~~  url: https://a.b/c~~  token: t
# one~~a: 1~~~~# two~~b: [1,  2]^del(.nothing)^# one~~a: 1~~~~# two~~b: [1,  2]
images:~~- a: 1~~- a: 2 # two^.images[1] *= { "a": "x", "kernel": {"b": 1} }| (.images[1] | ..) style = "double"^images:~~- a: 1~~- a: "x" # two~~  kernel:~~    b: 1
images:~~- arch: x~~- arch: y^setpath([(.images[] | select(.arch == "y") | path)].[0] + "kernel"; { "location": "l"})^images:~~- arch: x~~- arch: y~~  kernel:~~    location: l
networks: {}^.networks."foo" = {"mode":"user-v2","interface":""}^networks: {foo: {mode: user-v2, interface: ""}}
networks:~~  foo: 1~~  bar: 2~~  baz: 3^del(.networks."foo") | del(.networks."bar")^networks:~~  baz: 3
a: [1, 2, 3]^del(.a[0], .a[1])^a: [3]
a: 1^.mounts[].writable = true^a: 1~~mounts: []
mounts:~~- l: 1 # one~~- l: 2^.mounts[].writable = true^mounts:~~- l: 1 # one~~  writable: true~~- l: 2~~  writable: true
l: [a]^.l[3] = "d"^l: [a, null, null, d]
dns:~~- 1.1.1.1 # a~~- 2.2.2.2^.dns += ["2.2.2.2","3.3.3.3"] | .dns |= unique^dns:~~- 1.1.1.1 # a~~- 2.2.2.2~~- 3.3.3.3
networks:~~- lima: a # keep~~- vzNAT: true~~- x: 1^.networks |= unique_by(.lima)^networks:~~- lima: a # keep~~- vzNAT: true
images:~~- variant: a # A~~- variant: b # B^.images = [.images[] | select(.variant == "b")]^images:~~- variant: b # B
m:~~- old # o^.m = ["n1","n2"] + .m^m:~~- n1~~- n2~~- old # o
a: "x"^.a = "y"^a: "y"
a: x^.a = "80" | .b = "true" | .c = "~"^a: "80"~~b: "true"~~c: "~"
a: 1~~~~# c^.b = .a^a: 1~~~~# c~~b: 1
a: {b: 1}^.a = .a.b^a: 1
a: 2^.a |= . * 3 + 1^a: 7
a: 2^.a += 1 | .b -= 2^Error: !!null
a: 1^.^a: 1
config: {user: {uid: 1000}}^.config | .user | .uid^1000
name: foo^select(.name == "foo") | .name^foo
name: foo^.name == "f*"^true
name: foo^.name == "?oo"^true
disk: 1048576^.disk == "1048576"^true
disk: 1048576^.disk == "1M"^false
disk: 1048577^select(.disk > 1024*1024) | .disk^1048577
a: 1^.b > 1^false
name: xyz^.name | test("z")^true
name: xyz^.name | test("q|xy?z$")^true
a: 1^.a | test("z")^Error: cannot match with !!int
n: [{lima: a}, {lima: b}]^.n[].lima^a~~b
a: 1^.b^null
a: 1^.a == null, .b == null, null == .b^false~~true~~true
a: [1]^.a == .a^false
s: "b"^.s < "c", .s >= "b"^true~~true
a: 1^.a and .b, .a or .b, (.b | not)^false~~true~~true
a: false^.a // "dflt"^dflt
a: [3, 1]^[.a[] | . + 1] | .[1]^2
a: [3, 1]^.a | map(. * 2) | .[-2]^6
a: [3, 1]^.a | length^2
a: äöü^.a | length^3
b: 1~~a: 2^keys^- b~~- a
b: 1^has("b"), has("c")^true~~false
a: {b: [x]}^.a.b[0] | path | .[2]^0
a-b: {c.d: 1}^.a-b["c.d"]^1
K: 1^."K" + .["K"]^2
a: 1^{"x": .a, z: [.a, "q"]}^x: 1~~z:~~- 1~~- q
a: 1^.a | (tag, type)^!!int~~!!int
a: 1^.a  |~~	. + 1  # comment^2
a: 1^0x10 + .a^17
a: 7^.a % 4, .a / 2, .a - 1.5^3~~3.5~~5.5
a: 1^foo^Error: 1:1: invalid input text "foo"
a: 1^.a = ^Error: '=' expects 2 args but there is 1
a: 1^(.a^Error: 1:4: the expression ends too early
a: [1]^.a + {"b": 1} | .[1].b^1
a: {b: 1}^.a + [1]^Error: !!map
a: 1^document_index^0
a: x^.a?.b^null
a: {c: 1, d: {e: 1}}^.a * {"d": {"f": 2}} | .d^e: 1~~f: 2
a: 1^system("x")^Error: system operations are disabled, use --security-enable-system-operator to enable
TABLE
	# options
	printf 'a: 1 # c\n---\n# d\na: 2\n' >"$T/two.yaml"
	run "$LIMACTL" yq . "$T/two.yaml"
	outis "$(printf 'a: 1 # c\n---\n# d\na: 2')"
	run "$LIMACTL" yq true "$T/two.yaml"
	outis "$(printf 'true\ntrue')"
	ok 'two documents'
	run "$LIMACTL" yq -n -o json -I 0 .foo=42
	outis '{"foo":42}'
	run "$LIMACTL" yq -n .foo=42
	outis 'foo: 42'
	printf '{"a":1}{"a":"}"}\n{\n"a":\n3}' >"$T/stream"
	run "$LIMACTL" yq --input-format json --output-format=json --indent 0 .a "$T/stream"
	outis "$(printf '1\n"}"\n3')"
	printf '{"a":"x"}' >"$T/a.json"
	run "$LIMACTL" yq eval -r .a "$T/a.json"
	outis x
	run "$LIMACTL" yq -i '.a = "y"' "$T/a.json"
	same "$(tr -d ' \n' <"$T/a.json")" '{"a":"y"}'
	run "$LIMACTL" yq -e .b "$T/a.json"
	status 1
	errhas 'Error: no matches found'
	ok 'JSON in and out, in place, exit status'
	run env FOO=bar "$LIMACTL" yq -n 'env(FOO)'
	outis bar
	run env FOO=bar "$LIMACTL" yq --security-disable-env-ops -n 'env(FOO)'
	status 1
	same "$(cat "$err")" 'Error: env operations have been disabled'
	run "$LIMACTL" yq --version
	outre '^yq .*mikefarah.* version v'
	ln -s "$LIMACTL" "$T/yq.lima.exe"
	run "$T/yq.lima.exe" -n .a=1
	outis 'a: 1'
	ok 'environment, version, as a link'
	cd "$OLDPWD" || exit

	# --set and the flags
	printf '# head\nimages:\n- location: /etc/profile # img\nmounts:\n- location: "~" # home\nparam:\n  K: v\nprovision:\n- script: "echo {{.Param.K}}"\n' >"$T/t.yaml"
	num=0
	while IFS='^' read -r flags want; do
		[ -n "$flags" ] || continue
		num=$((num + 1))
		eval "set -- $flags"
		lc create --tty=false --name="f$num" "$@" --set '.disk = "1M"' "$T/t.yaml"
		case $want in
		fatal:*)
			status 1
			errhas "$(escaped "${want#fatal:}")"
			fails test -e "$LIMA_HOME/f$num" ;;
		*)
			status 0
			grep -v '^disk: 1M$' "$LIMA_HOME/f$num/lima.yaml" | diff "$T/t.yaml" - | sed -n 's/^[<>] \{0,1\}/&/p' | tr '\n' '~' >"$T/diff" || :
			same "$(cat "$T/diff")" "$want" ;;
		esac
		ok "$flags"
	done <<'TABLE'
--cpus 2^> cpus: 2~
--cpus=-1^fatal:error while processing flag `cpus`: invalid value for number of cpus, must be >= 0
--memory 4^> memory: 4GiB~
--memory 1.5^> memory: 1.5GiB~
--mount /a,/b:w^> - location: /b~>   mountPoint: /b~>   writable: true~> - location: /a~>   mountPoint: /a~>   writable: false~
--mount /x/./../y^> - location: /y~>   mountPoint: /y~>   writable: false~
--mount-only /a^< - location: "~" # home~> - location: /a~>   mountPoint: /a~>   writable: false~
--mount-none^< mounts:~< - location: "~" # home~> mounts: null~
--mount-none --mount /a^fatal:error while processing flag `mount-none`: flag `--mount-none` conflicts with `mount`
--mount /a --mount-only /b^fatal:error while processing flag `mount`: flag `--mount` conflicts with `--mount-only`
--mount-writable^>   writable: true~
--mount-inotify --nested-virt^> mountInotify: true~> nestedVirtualization: true~
--network lima:user-v2 --network lima:user-v2^> networks:~> - lima: user-v2~
--network eth0^fatal:error while processing flag `network`: network name must be `vzNAT` or `lima:*`, got `eth0`
--dns 1.1.1.1,::1^> dns:~> - 1.1.1.1~> - "::1"~> hostResolver:~>   enabled: false~
--dns x^fatal:invalid argument "x" for "--dns" flag: invalid string being converted to IP address: x
--rosetta^> vmOpts:~>   vz:~>     rosetta:~>       enabled: true~>       binfmt: true~
--param K=a=b^<   K: v~>   K: a=b~
--param missing=value^fatal:error while processing flag `param`: template does not define param `missing`
--param K^fatal:error while processing flag `param`: invalid parameter `K`, expected NAME=VALUE
--video --video=false^> video:~>   display: none~
--audio-device none --audio-interface hda^> audio:~>   device: none~>   interface: hda~
--ssh-port 2222^> ssh:~>   localPort: 2222~
--ssh-port 70000^fatal:invalid argument "70000" for "--ssh-port" flag: strconv.ParseUint: parsing "70000": value out of range
--containerd none^> containerd:~>   user: false~>   system: false~
--containerd both^fatal:error while processing flag `containerd`: expected one of [`user`, `system`, `user+system`, `none`], got `both`
--plain --mount /a --port-forward 80:8080^> - location: /a~>   mountPoint: /a~>   writable: false~>   static: true~> plain: true~> portForwards:~> - guestPort: "8080"~>   hostPort: "80"~>   static: true~
--port-forward 8080:80,static=true --port-forward '1:2'^> portForwards:~> - guestPort: "80"~>   hostPort: "8080"~>   static: true~> - guestPort: "2"~>   hostPort: "1"~>   static: false~
--port-forward 80^fatal:error while processing flag `port-forward`: invalid port forward format `80`, expected HOST:GUEST
--port-forward 1:2,static=x^fatal:invalid value for static parameter: `x`
--port-forward 1:2,x=y^fatal:invalid parameter `x=y`, expected `static=` followed by a boolean value
--shell /bin/ash^> user:~>   shell: /bin/ash~
--shell ash^fatal:error while processing flag `shell`: must be an absolute path, got `ash`
--cpus 2 --set .cpus=3^> cpus: 3~
--set .cpus=3 --set '.cpus += 1'^> cpus: 4~
--set foo^fatal:error while processing flag `set`: 1:1: invalid input text "foo"
--set 'load("/etc/passwd")'^fatal:file operations have been disabled
--set 'env(HOME)'^fatal:env operations have been disabled
--image-variant ''^fatal:`--image-variant` must not be empty
TABLE
	rm -rf "${LIMA_HOME:?}"/f*
	# what test() knows of regular expressions
	while read -r re yes no; do
		for w in $(echo "$yes" | tr , " "); do run "$LIMACTL" yq -n "\"$w\" | test(\"$re\")"; outis true; done
		for w in $(echo "$no" | tr , " "); do run "$LIMACTL" yq -n "\"$w\" | test(\"$re\")"; outis false; done
		ok "test $re: $yes but not $no"
	done <<'TABLE'
z xyz,z xyx
^a.c$ abc,a.c abcd,ac
^(ab|cd)+$ ab,abcd,cdabcd a,abc,xab
^a*b?$ aaa,aab,b ba,abb
[a-c]x|[^0-9]y$ bx,zy dx,9y
^\\d+\\.\\w$ 12.a,0._ a.a,12xa
^(a|b*)*c$ c,abbac abbad
TABLE
	run "$LIMACTL" yq -n '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" | test("^(a*)*(a*)*(a*)*b$")'
	status 1
	errhas 'makes too much'
	for re in '(a' 'a)' '[a' '*a' 'a{2}'; do
		run "$LIMACTL" yq -n "\"a\" | test(\"$re\")"
		status 1
		errhas 'Error: error parsing regexp'
	done
	ok 'regular expressions that are none, or take for ever'

	# list and info
	mkdir -p "$LIMA_HOME/_config"
	for who in foo bar; do
		mkdir "$LIMA_HOME/$who"
		printf 'images: [{location: /a}]\ncpus: 3\ndisk: 1MiB\nuser: {name: %s}\n' $who >"$LIMA_HOME/$who/lima.yaml"
	done
	lc list --format yaml
	status 0
	"$LIMACTL" yq -o json -I 0 . <"$out" >"$T/y2j"
	lc list --json
	holds cmp "$out" "$T/y2j"
	outre '^\{"name":"bar","hostname":"lima-bar","status":"Stopped"'
	ok 'list --format yaml says what --json says'
	for f in json yaml; do
		lc list --format $f
		cp "$out" "$T/plain"
		run env _LIMA_OUTPUT_IS_TTY=1 "$LIMACTL" list --format $f
		holds grep -q "$(printf '\033')\[0m" "$out"
		sed "s/$(printf '\033')\[[0-9]*m//g" "$out" >"$T/stripped"
		same "$("$LIMACTL" yq -p $f -o json -I 0 . <"$T/stripped")" "$("$LIMACTL" yq -p $f -o json -I 0 . <"$T/plain")"
	done
	ok 'list in colour'
	while IFS='^' read -r flags want; do
		eval "set -- $flags"
		lc list "$@"
		case $want in
		fatal:*) fatal "${want#fatal:}" ;;
		fatalhas:*) fatalhas "${want#fatalhas:}" ;;
		*)
			status 0
			noerr
			same "$(tr '\n' '~' <"$out")" "$want" ;;
		esac
		ok "list $flags"
	done <<'TABLE'
foo --yq .name^foo~
--yq '.name, .cpus'^bar 3~foo 3~
--yq 'select(.name == "foo")' --yq .config.user.name^foo~
--yq .disk --filter '.name == "f*"'^1048576~
--yq '{"n": .name}' -l '.disk == "1048576"'^{"n":"bar"}~{"n":"foo"}~
--yq '.config.user | {"who": .name}' --format yaml^who: bar~---~who: foo~
-q --filter '.status == "Running"'^
-q --filter '.name | test("o$")' -l .cpus==3^foo~
-q --yq 'select(.name == "foo")'^foo~
--filter '.name == "foo"' --format '{{.Name}}'^foo~
-q --filter .HostOS^
--yq 'env(HOME)'^fatal:env operations have been disabled
--yq 'load("/etc/passwd")'^fatal:file operations have been disabled
--yq foo^fatalhas:1:1: invalid input text "foo
--yq '., .'^fatalhas:several values
--yq .x --format table^fatal:option --yq only works with --format json or yaml
-q --json^fatal:option --quiet can only be used with '--format table'
--json --format yaml^fatal:option --json conflicts with option --format
--list-fields --yq .x^fatal:option --list-fields conflicts with option --yq
--list-fields -l .x^fatal:option --list-fields conflicts with option --filter
TABLE
	lc info --yq .shellEnvBlock[0]
	outis 'BASH*'
	ok 'info --yq'

	# edit
	f=$LIMA_HOME/foo/lima.yaml
	cp "$f" "$T/before"
	lc edit --tty=false foo
	logged info 'Aborting, no changes made to the instance'
	lc edit --tty=false --set 'del(.nothing)' foo
	logged info 'Aborting, no changes made to the instance'
	holds cmp "$f" "$T/before"
	lc edit --tty=false --cpus 4 --disk 1 foo
	status 0
	logged info 'Instance `foo` configuration edited'
	filehas "$f" 'cpus: 4'
	filehas "$f" 'disk: 1GiB'
	mkdir "$T/rej"
	cd "$T/rej" || exit
	for c in 'edit foo' 'start foo' 'restart foo' 'rename foo other'; do
		# shellcheck disable=SC2086  # words
		lc --tty=false $c --set '.disk = "1MiB"'
		fatal 'the YAML is invalid, saved the buffer as `lima.REJECTED.yaml`: field `disk`: shrinking the disk (1GiB --> 1MiB) is not supported'
		filehas lima.REJECTED.yaml 'disk: 1MiB'
		rm lima.REJECTED.yaml
	done
	lc edit --tty=false --set '.cpus = "x"' foo
	fatalhas 'saved the buffer as `lima.REJECTED.yaml`: failed to unmarshal YAML'
	filehas "$f" 'cpus: 4'
	cd "$OLDPWD" || exit
	ok 'a refused edit keeps the old text, and the new one as lima.REJECTED.yaml'
	lc edit --tty=false --arch x86_64 foo
	fatal 'unknown flag: --arch'
	lc edit nope
	fatal 'instance `nope` not found'
	ok 'edit with flags'
	cp "$T/t.yaml" "$T/own.yaml"
	lc edit --log-level error --set '.images[0] *= {"location": "/b", "digest": null}' "$T/own.yaml"
	noerr
	filehas "$T/own.yaml" '- location: /b # img'
	filehas "$T/own.yaml" '# head'
	printf 'base: template:default\n' >"$T/based.yaml"
	cd "$T/rej" || exit
	lc edit --tty=false --set .cpus=2 "$T/based.yaml"
	cd "$OLDPWD" || exit
	status 1
	filelacks "$T/based.yaml" cpus
	mkdir "$T/own"          # $T/templates is the home of a section
	find templates -name '*.yaml' -exec cp --parents {} "$T/own" \;
	find "$T/own" -name '*.yaml' -exec "$LIMACTL" edit --tty=false --set 'del(.nothing)' {} \; 2>"$T/err2"
	holds diff -r --exclude=images templates "$T/own/templates"
	rm -rf "${T:?}/own" "$T/lima.REJECTED.yaml"
	ok 'edit a file'
	if have script; then
		printf '#!/bin/sh\nsed -i "s/cpus: [0-9]*/cpus: ${N}/" "$1"\n' >"$T/ed"
		chmod +x "$T/ed"
		run env N=7 EDITOR="$T/ed" VISUAL= script -qec "'$LIMACTL' edit --start=false foo" /dev/null
		outhas 'configuration edited'
		filehas "$f" 'cpus: 7'
		filelacks "$f" '# Change'
		cd "$T" || exit
		run env N=-1 EDITOR="$T/ed" VISUAL= script -qec "'$LIMACTL' edit --start=false foo" /dev/null
		filehas "$f" 'cpus: 7'
		printf '#!/bin/sh\n: >"$1"\n' >"$T/ed"
		run env EDITOR="$T/ed" VISUAL= script -qec "'$LIMACTL' edit --start=false foo" /dev/null
		outhas 'Aborting, as requested'
		cd "$OLDPWD" || exit
		filehas "$f" 'cpus: 7'
		ok 'edit in an editor'
	fi
	rm -rf "${LIMA_HOME:?}"/foo "${LIMA_HOME:?}"/bar
	finish
}
