# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# provision mode ansible: its playbooks run on the host when the guest is ready.

test_ansible() {
	begin ansible
	buildfakes
	mkdir "$T/playbin"
	PATH=$T/playbin:$fakes:$realpath
	cat >"$T/playbin/ansible-playbook" <<'S'
#!/bin/sh
echo "$*" >>"$0.calls"
echo "PARAM_color=$PARAM_color" >>"$0.calls"
cat "$2" >>"$0.calls"
[ "$(cat "$0.status")" != 0 ] || echo "PLAY RECAP"
exit $(cat "$0.status")
S
	chmod 755 "$T/playbin/ansible-playbook"
	echo 0 >"$T/playbin/ansible-playbook.status"
	plan "$goodboot"
	: >"$T/play.yaml"
	mk dev "{images: [{location: /etc/profile}], disk: 1M, containerd: {user: false, system: false}, param: {color: red},
		provision: [{mode: ansible, playbook: $T/play.yaml}, {mode: system, script: \"#!/bin/sh\necho \$PARAM_color\n\"}]}"
	status 0
	lc start dev
	status 0
	errhas READY
	errhas "PLAY RECAP"
	noout
	same "$(cat "$T/playbin/ansible-playbook.calls")" "-i $LIMA_HOME/dev/ansible-inventory.yaml $T/play.yaml
PARAM_color=red
lima:
  hosts:
    dev:
      ansible_connection: ssh
      ansible_host: lima-dev
      ansible_ssh_common_args: \"-F '$LIMA_HOME/dev/ssh.config'\""
	ok 'a playbook runs against the instance, with its parameters'
	lc stop dev
	echo 3 >"$T/playbin/ansible-playbook.status"
	lc start dev
	fatal "ansible-playbook $T/play.yaml exited with status 3 (the VM runs on)"
	errlacks READY
	lc list --format '{{.Status}}' dev
	outis Running
	ok 'one that fails fails the start, and the VM runs on'
	lc stop dev
	rm "$T/playbin/ansible-playbook"
	lc start dev
	fatal 'ansible-playbook: not found in PATH; install ansible (the VM runs on)'
	ok 'no ansible on the host'
	lc delete -f dev
	finish
}
