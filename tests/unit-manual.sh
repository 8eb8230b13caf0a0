# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# --help, limactl.1 and README agree; make install, uninstall and dist.

# everycommand: each visible command, those of groups as two words
everycommand() {
	commands | while read -r c; do
		echo "$c"
		"$LIMACTL" "$c" --help | sed -n "/^Commands:/,/^\$/s/^  \\([a-z-]*\\) .*/$c \\1/p"
	done
}
# flagsof COMMAND: the long flags its help shows
flagsof() {
	# shellcheck disable=SC2086  # may be two words
	"$LIMACTL" $1 --help | sed -n 's/^  .\{0,4\}--\([a-z0-9-]*\) .*/\1/p'
}
# make with nothing of the harness in it
mk1() { run env -i PATH="$realpath" HOME="$HOME" make -s "$@"; }

test_manual() {
	begin manual

	everycommand >"$T/every"
	[ "$(wc -l <"$T/every")" -gt 30 ] || bad 'too few commands'
	while read -r c; do
		# one or two words after .It Cm, alone or as one of a | b | c
		g=${c%% *} s=${c#* }
		if [ "$g" = "$s" ]; then
			holds grep -qE "^\\.It Cm ($g|[a-z, -]*\\| $g)( |\$)" limactl.1
		else
			holds grep -qE "^\\.It Cm $g ([a-z]+ \\| )*$s( |\$)" limactl.1
		fi
	done <"$T/every"
	ok 'each command has its place in limactl.1'
	: >"$T/flags"
	{ echo; cat "$T/every"; } | while read -r c; do flagsof "$c"; done | sort -u >"$T/flags"
	[ "$(wc -l <"$T/flags")" -gt 30 ] || bad 'too few flags'
	while read -r f; do
		holds grep -qE -- "(Fl|,) ([a-zA-Z] , )?-$f( |\$|,)" limactl.1
	done <"$T/flags"
	ok 'each flag of --help is in limactl.1'
	# and nothing that no help shows; flags of other programs have one dash
	grep -oE '(Fl|Fl [a-zA-Z] ,|,) -[a-z][a-z0-9-]*' limactl.1 | sed 's/.* -//' | sort -u |
		grep -vxF -e socket -e pidfile -e instance -e guest-uid -e read-only -e follow-symlinks >"$T/manflags" || :
	while read -r f; do
		holds grep -qxF -- "$f" "$T/flags"
	done <"$T/manflags"
	ok 'each flag of limactl.1 is in a --help'
	grep -oE '(^|[ `])limactl [a-z-]+' README | sed 's/.*limactl //' | sort -u >"$T/readme"
	while read -r c; do
		case $c in in | is | and | to) continue ;; esac	# prose
		"$LIMACTL" help "$c" >/dev/null 2>&1 || bad "README has: limactl $c"
	done <"$T/readme"
	ok 'README names commands that are there'

	# make install
	if have make && [ "$LIMACTL" = "$(realpath limactl)" ]; then
		mk1 install DESTDIR="$T/dest" PREFIX=/usr
		status 0
		noerr
		d=$T/dest/usr
		for f in bin/limactl share/man/man1/limactl.1 share/bash-completion/completions/limactl \
			share/zsh/site-functions/_limactl share/fish/vendor_completions.d/limactl.fish; do
			holds test -s "$d/$f"
		done
		for l in lima nerdctl.lima docker.lima podman.lima apptainer.lima kubectl.lima; do
			holds test -x "$d/bin/$l"
		done
		run "$d/bin/lima" --version
		outis 'limactl version 2.2.0'
		lc completion bash
		holds cmp "$out" "$d/share/bash-completion/completions/limactl"
		same "$(head -n 1 "$d/share/zsh/site-functions/_limactl")" '#compdef limactl'
		ok 'make install'
		mkdir -p "$d/libexec/lima"
		printf '#!/bin/sh\necho in libexec\n' >"$d/libexec/lima/limactl-there"
		chmod +x "$d/libexec/lima/limactl-there"
		run "$d/bin/limactl" there
		outis 'in libexec'
		run "$d/bin/limactl" info
		outhas "\"$d/libexec/lima\""
		rm -r "$d/libexec"
		ok 'libexec of the place it was installed to'
		mk1 uninstall DESTDIR="$T/dest" PREFIX=/usr
		status 0
		same "$(find "$T/dest" ! -type d | wc -l)" 0
		ok 'make uninstall leaves no file'
	else
		skip 'make install' 'another limactl is tested'
	fi
	if have git && git rev-parse --git-dir >/dev/null 2>&1; then
		mk1 dist
		status 0
		v=$(sed -n 's/^VERSION = //p' Makefile)
		tar -tzf "lima-c-$v.tar.gz" >"$T/tar" 2>/dev/null || bad 'no tarball'
		for f in lima.c yaml.c guestagent.c config.def.h Makefile README LICENSE limactl.1 test.sh templates/default.yaml guest/boot.sh; do
			holds grep -qxF "lima-c-$v/$f" "$T/tar"
		done
		rm -f "lima-c-$v.tar.gz"
		ok 'make dist: all that a build needs'
	else
		skip 'make dist' 'no git checkout'
	fi
	for x in aarch64-linux-gnu-gcc x86_64-linux-gnu-gcc; do
		if [ "${x%%-*}" = "$host" ] || ! have "$x"; then continue; fi
		mkdir "$T/cross"
		cp Makefile guestagent.c "$T/cross"
		mk1 -C "$T/cross" "CC=$x" lima-guestagent
		status 0
		for a in aarch64:b7 x86_64:3e; do       # e_machine, elf(5)
			same "$(od -An -tx1 -j18 -N1 "$T/cross/lima-guestagent.${a%:*}" | tr -d ' ')" "${a#*:}"
		done
		rm -r "$T/cross"
		ok "with CC=$x each guest agent is of its own architecture"
	done
	mkdir "$T/alone"        # limactl-static beside it would be a plugin
	cp "$LIMACTL" "$T/alone/limactl"
	run "$T/alone/limactl" info
	outhas '"shellEnvBlock": ['
	outre '^ +"BASH\*",$'
	same "$(sed -n '/"shellEnvBlock"/,/\]/p' "$out" | grep -c '^ *"[A-Z_*]*",\{0,1\}$')" 27
	outhas '"plugins": null'
	outhas '"libexecPaths": null'
	run env LIMA_SHELLENV_BLOCK=+FOO "$LIMACTL" info
	outre '^ +"FOO"$'
	mkdir "$T/pl"
	printf '#!/bin/sh\n# <limactl-desc>one</limactl-desc>\n' >"$T/pl/limactl-one"
	chmod +x "$T/pl/limactl-one"
	PATH=$PATH:$T/pl
	run "$T/alone/limactl" info
	same "$(sed -n '/"plugins"/,/\]/p' "$out" | tr -d ' \n')" "\"plugins\":[{\"name\":\"one\",\"path\":\"$T/pl/limactl-one\",\"description\":\"one\"}],"
	ok 'info: shellEnvBlock, plugins, paths'
	finish
}
