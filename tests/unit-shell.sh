# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# shell: environment, --start, --reconnect, --sync; the wrappers and plugins.

# printed TEXT: the script that ssh gets
printed() { [ "$(cat "$out")" = "$1" ] || bad "the script is not: $1"; }
# env1 VAR... : exactly these variables reach the guest
passed() {
	sed "s/.* exec //;s/ [^ ]*sh -l .*//" "$out" | tr ' ' '\n' | sed -n 's/=.*//p' | sort | tr '\n' ' ' >"$T/passed"
	same "$(cat "$T/passed")" "$1"
}
program() {	# program NAME: says its name, its words and what we set
	printf '#!/bin/sh\necho "%s $*"\nenv | grep -E "^(DOCKER_HOST|CONTAINER_HOST|KUBECONFIG)=" || :\n' "$1" >"$fakes/$1"
	chmod +x "$fakes/$1"
}

# five connections: the fake's queue is full
queued() { [ "$(find "$T" -maxdepth 1 -name 'busy*' | wc -l)" -ge 5 ]; }

test_shell() {
	begin shell
	buildfakes
	PATH=$fakes:$realpath
	mk dev "user: {home: \"$T/guest home\"}
mounts: []
images:
- location: /etc/profile
disk: 1M
"
	status 0
	mk off
	status 0
	plan "$goodboot"
	lc start dev
	status 0

	# --preserve-env
	run env -i PATH="$PATH" HOME="$HOME" LIMA_HOME="$LIMA_HOME" FOO=bar 'BAZ=a b' SSH_X=1 BASH_Y=2 _Z=3 USER=u "$LIMACTL" shell --preserve-env dev printenv
	status 0
	printed "false ; exec env LIMA_HOME=$LIMA_HOME FOO=bar BAZ='a b' /bin/bash -l -c printenv"
	ok '--preserve-env: what passes by default'
	run env -i PATH="$PATH" HOME="$HOME" LIMA_HOME="$LIMA_HOME" FOO=1 BAR=2 'LIMA_SHELLENV_BLOCK=+FOO, *AR' "$LIMACTL" shell --preserve-env dev x
	passed 'LIMA_HOME LIMA_SHELLENV_BLOCK '
	run env -i PATH="$PATH" HOME="$HOME" LIMA_HOME="$LIMA_HOME" FOO=1 BAR=2 LIMA_SHELLENV_BLOCK='LIMA*,,B*R' "$LIMACTL" shell --preserve-env dev x
	passed 'FOO HOME PATH '
	run env -i PATH="$PATH" HOME="$HOME" LIMA_HOME="$LIMA_HOME" FOOBAR=1 FOOBAZ=2 LIMA_SHELLENV_BLOCK='*' LIMA_SHELLENV_ALLOW='F*BAR,USER' USER=u "$LIMACTL" shell --preserve-env dev x
	passed 'FOOBAR USER '
	ok 'block and allow lists'
	run env LIMA_SHELLENV_BLOCK=FOO-BAR "$LIMACTL" shell --preserve-env dev x
	fatal 'Invalid LIMA_SHELLENV_BLOCK pattern: pattern `FOO-BAR` contains invalid character `-` at position 3'
	run env LIMA_SHELLENV_ALLOW='A,B C' "$LIMACTL" shell --preserve-env dev x
	fatal 'Invalid LIMA_SHELLENV_ALLOW pattern: pattern `B C` contains invalid character ` ` at position 1'
	run env LIMA_SHELLENV_BLOCK=FOO-BAR "$LIMACTL" shell dev x
	status 0
	ok 'a bad pattern, told only when it counts'

	# who, and what is refused
	lc shell
	fatal 'requires instance name as first argument'
	lc shell --tty=false nope
	fatal 'instance `nope` does not exist, run `limactl create nope` to create a new instance'
	cp "$err" "$T/err1"
	lc shell --tty=false --instance nope
	same "$(sed 's/^time="[^"]*"//' "$err")" "$(sed 's/^time="[^"]*"//' "$T/err1")"
	lc shell --tty=false off true
	fatal 'instance `off` is stopped, run `limactl start off` to start the instance'
	feed 'y
y
'
	lc shell --tty=true off true
	fatal 'instance `off` is stopped, run `limactl start off` to start the instance'
	lc shell --instance dev --nonexistent-flag
	fatal 'unknown flag: --nonexistent-flag'
	ok 'shell: what is refused, both forms alike'
	lc shell --instance dev -- --x
	status 0
	cp "$out" "$T/out1"
	lc shell dev -- --x
	status 0
	holds cmp "$out" "$T/out1"
	outhas ' -c --x'
	lc shell dev start
	logged warning 'Perhaps you meant `limactl start`?'
	ok 'shell: words that look like flags or commands'

	# --start
	plan "$goodboot"
	lc shell --start=false off true
	fatal 'instance `off` is stopped, run `limactl start off` to start the instance'
	lc shell --start off true
	status 0
	printed 'false ; exec /bin/bash -l -c true'
	errlacks READY
	errhas 'Starting the instance `off`'
	lc shell --start off true
	noerr
	lc stop off
	ok '--start starts what is stopped, without READY'

	# --reconnect
	m='' m2=''      # plan above forgot the first one
	fails master
	lc shell --reconnect dev true
	status 0
	logged info 'Exiting ssh session for the instance `dev`'
	await 3 master || bad 'no other master'
	ok '--reconnect: another master'
	if have socat; then
		send STOP "$m2"
		for i in 1 2 3 4 5 6; do
			socat -u "UNIX-CONNECT:$LIMA_HOME/dev/ssh.sock" "OPEN:$T/busy$i,creat" >/dev/null 2>&1 &
		done
		await 3 queued || bad 'no five connections'
		background shell --reconnect dev true
		await 5 grep -q 'Exiting ssh session\|nobody listens' "$err" || bad 'it says nothing'
		m=$m2
		send CONT "$m2"
		collect 30
		logged info 'Exiting ssh session for the instance `dev`'
		await 10 master || bad 'no other master'
		ok '--reconnect: a master whose queue is full is one'
	else
		skip 'a full queue' 'needs socat'
	fi

	# --sync, with the guest on this host: an ssh that runs the words here
	cat >"$T/runssh" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	-F | -o | -p) shift 2 ;;
	lima-* | 127.0.0.1) shift; [ "$1" != -- ] || shift; break ;;
	*) shift ;;
	esac
done
exec sh -c "$*"
END
	chmod +x "$T/runssh"
	if have rsync; then
		mkdir -p "$T/guest home"
		p="$T/a'b c/proj"
		mkdir -p "$p/sub"
		echo one >"$p/one"
		echo gone >"$p/sub/gone"
		ln -s one "$p/link"
		g="$T/guest home$p"
		run env SSH="$T/runssh" HOME="$HOME" sh -c 'cd "$1" && shift && exec "$@"' sh "$p" "$LIMACTL" shell --sync . --tty=false dev sh -c 'pwd; echo two >two; chmod 700 two; rm sub/gone; ln -sf two link'
		status 0
		outis "$g"
		logged info "Syncing host current directory($p) to guest instance..."
		logged info "Successfully synced host current directory to guest($g) instance."
		logged info 'Successfully synced back the changes to host.'
		same "$(cat "$p/two")" two
		mode "$p/two" 700
		same "$(readlink "$p/link")" two
		fails test -e "$p/sub/gone"
		fails test -e "$g"
		holds test -d "$(dirname "$g")"
		ok '--sync: to and fro, the copy goes, its parents stay'
		run env SSH="$T/runssh" "$LIMACTL" shell --sync "$p" --yes dev sh -c 'rm two; exit 3'
		status 3
		same "$(cat "$p/two")" two
		holds test -d "$g"
		fails test -e "$g/two"
		ok '--sync: a command that fails brings nothing back'
		if have script && have expect; then
			echo same >"$p/same"
			# the menu's third: the pager; then Yes
			printf '#!/bin/sh\ncp "$1" "%s"\n' "$T/shown" >"$T/pager"
			chmod +x "$T/pager"
			syncasked() {
				keys=$1
				shift
				expect -c 'set timeout 30; spawn -noecho env SSH='"$T/runssh"' PAGER='"$T/pager"' '"$LIMACTL"' shell --sync {'"$p"'} dev sh -c {'"$*"'}
					foreach k {'"$keys"'} { expect -re {type to filter} {send "$k\r"} }
					expect eof; catch wait r; exit [lindex $r 3]' >"$out" 2>"$err" </dev/null && rc=0 || rc=$?
				cmd="shell --sync: $*, then $keys"
			}
			syncasked '3 2' 'echo new >new; echo changed >same; rm -f one; chmod 711 sub'
			status 0
			outhas 'Accept the changes? (added: 1, deleted: 1, modified: 1, metadata: 1)'
			outhas 'Skipping syncing back the changes to host.'
			filehas "$T/shown" '+changed'
			filehas "$T/shown" '*deleting   one'
			filehas "$T/shown" 'Number of files'
			same "$(cat "$p/same")" same
			holds test -e "$p/one"
			fails test -e "$g"
			ok '--sync on a terminal: the changes are counted, shown and refused'
			syncasked 1 'echo new >new; echo changed >same; rm -f one'
			status 0
			outhas 'Successfully synced back the changes to host.'
			same "$(cat "$p/same")" changed
			fails test -e "$p/one"
			echo one >"$p/one"
			syncasked '' true
			status 0
			outhas 'No changes detected'
			outlacks 'Accept the changes'
			fails test -e "$g"
			run env SSH="$T/runssh" "$LIMACTL" shell --tty --sync "$p" dev touch more
			status 1
			errhas "there is no terminal to ask on; the changes are in \`$g\` of the guest"
			fails test -e "$p/more"
			rm -rf "$g"
			ok '--sync on a terminal: accepted, nothing to accept, nobody to ask'
		else
			skip '--sync on a terminal' 'script or expect is not installed'
		fi
		lc shell --sync / --yes dev true
		fatalhas 'expected the depth of the host working directory (`/`) to be more than 4, only got 2 (Hint: cd to a deeper directory)'
		lc shell --sync "$p" --workdir / --yes dev true
		fatal 'cannot use `--workdir` and `--sync` at the same time'
		: >"$fakes/norsync"
		lc shell --sync "$p" --yes dev true
		fatal 'rsync not available on guest(s)'
		rm "$fakes/norsync"
		nopath rsync
		PATH=$fakes:$PATH
		lc shell --sync "$p" --yes dev true
		fatalhas 'rsync is required for `--sync` but not found: '
		PATH=$fakes:$realpath
		cp "$LIMA_HOME/dev/lima.yaml" "$T/dev.yaml"
		printf '%s\n' "{images: [location: /etc/profile], disk: 1M, mounts: [{location: $T}]}" >"$LIMA_HOME/dev/lima.yaml"
		lc shell --sync "$p" --yes dev true
		fatal 'cannot use `--sync` when the instance has host mounts configured, start the instance with `--mount-none` to disable mounts'
		mv "$T/dev.yaml" "$LIMA_HOME/dev/lima.yaml"
		ok '--sync: what is refused'
	else
		skip '--sync' 'rsync is not installed'
	fi

	# wrappers
	for w in lima nerdctl docker podman apptainer kubectl; do
		l=$w.lima
		[ $w != lima ] || l=lima
		ln -sf "$LIMACTL" "$T/$l"
	done
	run "$T/lima" --help
	status 0
	same "$(head -n 1 "$out")" 'Usage: lima [COMMAND...]'
	run env LIMACTL="$fakes/other" "$T/lima" x
	status 1
	program other
	run env LIMACTL="$fakes/other" LIMA_INSTANCE=dev LIMA_SHELL=/bin/sh "$T/lima" a 'b c'
	outis 'other shell --shell /bin/sh --instance dev a b c'
	run env LIMACTL="$fakes/other" "$T/lima" -v
	outis 'other -v'
	run env LIMA_INSTANCE=off "$T/lima" --tty=false --start=false
	fatal 'instance `off` is stopped, run `limactl start off` to start the instance'
	run "$T/lima" --tty=false --nonexistent-flag
	fatal 'unknown flag: --nonexistent-flag'
	ok 'lima: its words, and LIMACTL'
	run env LIMA_INSTANCE=dev ZZ=1 "$T/nerdctl.lima" run --rm alpine
	status 0
	outhas "ZZ=1"
	outhas "/bin/bash -l -c 'nerdctl run --rm alpine'"
	ok 'nerdctl.lima: in the guest, with the environment'

	for t in docker podman apptainer; do
		run "$T/$t.lima" ps
		status 1
		noout
		same "$(cat "$err")" "instance \"$t\" does not exist, run \`limactl create --name=$t template:$t\` to create a new instance"
	done
	run env LIMA_INSTANCE=off "$T/docker.lima" ps
	status 1
	same "$(cat "$err")" 'instance "off" is not running, run `limactl start off` to start the existing instance'
	run "$T/kubectl.lima" get
	status 1
	noout
	same "$(wc -l <"$err")" 4
	ok 'wrappers of tools: no instance, or a stopped one'
	export LIMA_INSTANCE=dev
	for t in docker podman kubectl; do
		v=$(echo $t | tr '[:lower:]' '[:upper:]')
		run env "$v=no-such-$t" "$T/$t.lima" ps 'a b'
		status 0
		[ $t != kubectl ] || t="sudo kubectl"
		outhas " -c '$t ps '\"'\"'a b'\"'\"''"
	done
	run env APPTAINER_BINDPATH=/x "$T/apptainer.lima" run
	outhas " -c 'APPTAINER_BINDPATH=/x,$HOME apptainer run'"
	ok 'tools that the host has not run in the guest'
	for t in docker podman kubectl; do program "my$t"; done
	run env DOCKER=mydocker "$T/docker.lima" ps -a
	outis "mydocker ps -a
DOCKER_HOST=unix://$LIMA_HOME/dev/sock/docker.sock"
	run env PODMAN=mypodman "$T/podman.lima" ps -a
	outis "mypodman --remote ps -a
CONTAINER_HOST=unix://$LIMA_HOME/dev/sock/podman.sock"
	run env KUBECTL=mykubectl "$T/kubectl.lima" get
	outis "mykubectl get
KUBECONFIG=$LIMA_HOME/dev/copied-from-guest/kubeconfig.yaml"
	unset LIMA_INSTANCE
	lc rename off k8s
	run env KUBECTL=mykubectl "$T/kubectl.lima" get
	status 1
	same "$(cat "$err")" 'instance "k8s" is not running, run `limactl start k8s` to start the existing instance'
	lc rename k8s k3s
	run "$T/kubectl.lima" get
	errhas 'instance "k3s" is not running'
	ok "tools that the host has get the engine's address"

	# plugins
	mkdir "$T/plug"
	printf '#!/bin/sh\n# <limactl-desc>says hello</limactl-desc>\necho "hello $*"\ncommand -v sh >/dev/null\nexit 7\n' >"$T/plug/limactl-hello"
	chmod +x "$T/plug/limactl-hello"
	cp "$T/plug/limactl-hello" "$T/plug/limactl-url-hello"
	cp "$T/plug/limactl-hello" "$T/plug/limactl-list"
	: >"$T/plug/limactl-noexec"
	PATH=$PATH:$T/plug
	lc hello --nope -x 'a b'
	status 7
	outis 'hello --nope -x a b'
	noerr
	lc list -q
	outis 'dev
k3s'
	lc noexec
	fatal 'unknown command "noexec" for "limactl"'
	lc url-hello
	fatal 'unknown command "url-hello" for "limactl"'
	lc --help
	outre '^  hello +says hello$'
	outlacks url-hello
	lc __complete hel
	outhas "hello${tab}says hello"
	ok 'plugins: words and status pass, built-in commands win'
	PATH=$fakes:$realpath

	# completion
	lc __complete snapshot ''
	same "$(cut -f 1 "$out" | tr '\n' ' ')" 'create apply delete list :4 '
	lc __completeNoDesc stop ''
	outis 'dev
k3s
:4'
	lc __complete create template:almalinux-1
	outis 'template:almalinux-10
:4'
	lc __complete start --cpus ''
	outre '^4$'
	lc __complete copy d
	outis 'dev:
:4'
	lc __complete shell dev ''
	outis ':4'
	lc __complete network delete us
	outis 'user-v2
:4'
	lc __complete list --format=j
	outis '--format=json
:4'
	lc __complete show-ssh -f c
	outis 'cmd
config
:4'
	lc __complete nosuch ''
	outis ':4'
	ok 'completion: commands, flags, values, names'
	for s in bash zsh fish; do
		lc completion $s
		status 0
		noerr
		outhas ' __complete'
		! have $s || holds $s -n "$out"
	done
	lc completion csh
	fatalhas 'only for bash, zsh, fish and powershell'
	ok 'completion: the scripts'
	if have bash; then
		mkdir "$T/path"
		ln -s "$LIMACTL" "$T/path/limactl"
		cat >"$T/comp.bash" <<'END'
. <(limactl completion bash)
COMP_WORDBREAKS=' '
for COMP_LINE in 'limactl sto' 'limactl create template:almalinux-1' 'limactl stop d' 'limactl list --format=ya'; do
	COMP_POINT=${#COMP_LINE}
	_limactl
	echo "${COMPREPLY[*]}"
done
COMP_WORDBREAKS=' :='
COMP_LINE='limactl create template:almalinux-1' COMP_POINT=${#COMP_LINE}
_limactl
echo "${COMPREPLY[*]}"
END
		PATH=$T/path:$realpath
		run bash --norc "$T/comp.bash"
		outis 'stop
template:almalinux-10
dev
--format=yaml
almalinux-10'
		PATH=$fakes:$realpath
		ok 'completion in bash'
	else
		skip 'completion in bash' 'bash is not installed'
	fi

	lc delete -f dev k3s
	status 0
	finish
}
