/* config.def.h - what a user may change before building
 *
 * make copies this file once to config.h and never over it.  Each value says
 * its unit and why it is what it is.  YAML keys override these at run time. */

/* ---- a new instance, where its lima.yaml is silent ---- */
static const int defcpus = 4;                   /* at most; never more than this process may use */
static const long long defmemory = 4LL << 30;   /* bytes, at most; never more than half of the RAM */
static const char defdisk[] = "100GiB";         /* virtual: the file grows as the guest writes */
static const char deftemplate[] = "default";    /* template:NAME of a start without arguments */
static const int defsshport = 60022;            /* of the instance `default`, when that port is free */
static const char fallbackuser[] = "lima";      /* when the host's login name cannot be taken over */
static const char *const reservedusers[] = {            /* accounts that images have already */
	"admin", "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy",
	"www-data", "backup", "list", "irc", "_apt", "nobody", "systemd-network", "systemd-resolve",
	"systemd-timesync", "messagebus", "sshd", "polkitd",
};
static const long long fallbackuid = 1000;      /* when the host's uid cannot: 0, nobody ... */

/* nerdctl and all it needs, for containerd, where no file lists archives */
static const struct { const char *arch, *location, *digest; } enginearchives[] = {
	{ "x86_64", "https://github.com/containerd/nerdctl/releases/download/v2.3.5/nerdctl-full-2.3.5-linux-amd64.tar.gz",
	  "sha256:b697295c623639734aaab737523c808fd3cc8d3046039fd94fff1744e4c317aa" },
	{ "aarch64", "https://github.com/containerd/nerdctl/releases/download/v2.3.5/nerdctl-full-2.3.5-linux-arm64.tar.gz",
	  "sha256:6e4b687f1d138e750a3c8372abc0f81d3d7490b6359c48c0562fc7dfe98859b2" },
};

/* ---- the guest's network: QEMU's user mode stack ---- */
static const char slirpnet[] = "192.168.5.0/24";        /* change all four when this clashes with yours */
static const char slirpgateway[] = "192.168.5.2";       /* the host's loopback, seen from the guest */
static const char slirpdns[] = "192.168.5.3";           /* forwards to the host's resolver */
static const char slirpaddress[] = "192.168.5.15";      /* the guest */

/* TCP rules with `static: true` whose guestIP is 0.0.0.0 or the guest's address: by QEMU instead of ssh.  In an
 * emulated guest eight times as fast, but many connections at once wait for each other: its backlog is 1 */
static const bool statichostfwd = false;

/* UDP that automatic forwarding leaves alone: DHCP, NTP and its control, mDNS, LLMNR */
static const unsigned short neverudp[] = { 67, 68, 123, 323, 5353, 5355 };

/* ---- patience, in milliseconds ---- */
static const long long startwait = 10 * 60 * 1000;      /* start --timeout: until Running */
static const long long powerwait = 3 * 60 * 1000;       /* power button, until QEMU is asked to quit */
static const long long powerask = 5 * 1000;             /* ... and until the guest is asked through ssh as well */
static const long long pressagain = 1000;              /* the button again: a booting guest misses it */
static const long long quitwait = 10 * 1000;            /* QMP quit, until SIGKILL */
static const long long silentwait = 45 * 1000;          /* a console that says nothing of sshd: try ssh all the same */
static const long long retryfirst = 100;                /* ssh that failed: again after this, then doubled ... */
static const long long retrylast = 5 * 1000;            /* ... up to this */
static const long long loginwait = 40 * 1000;           /* an ssh master that hangs is ended */
static const long long donewait = 3 * 1000;             /* ssh works, console silent: ask through ssh */
static const int probetries = 200;                      /* a probe that fails is run again so often, */
static const int probefails = 10;                       /* when provisioning failed before, only so often, */
static const long long probefirst = 100;                /* first after so long, doubled, ... */
static const long long probelast = 3 * 1000;            /* ... then after this */
static const long long spacewait = 5 * 1000;            /* VM paused on a full disk: look again */
static const long long takenwait = 5 * 1000;            /* a host port in use: tried again */
static const long long healthwait = 60 * 1000;          /* the boot is done, but the guest agent or a mount is not there: DEGRADED */
static const long long mountwait = 30 * 1000;           /* a start waits so long for mounts that are made through ssh */
static const long long mountgap = 3 * 1000;             /* a guest that is to see its server gone closes the port before */
static const long long mountslow = 60 * 1000;           /* the longest pause before a server that keeps failing is tried again */
static const long long requestwait = 3 * 1000;          /* a client of ha.sock that does not finish its request */

static const long long clockslack = 200;                /* a time that was longer on its way to the guest is sent again, */
static const int clocktries = 10;                       /* so often at most */
static const long long inotifypause = 20;               /* mountInotify: changes of a file in this time are one */
static const long long rebootcalm = 3600 * 1000;        /* so long without a reboot, and reboots are logged again */

/* ---- bounds ---- */
static const int inotifymax = 16384;                    /* mountInotify: directories that are watched, over all mounts */
static const long long serialcap = 8 << 20;             /* serial.log is cut when it grows beyond, bytes */
static const long long logcap = 64 << 20;                /* ha.*.log that grew beyond take no more of what a guest can cause, bytes;
                                                         * of what others write, to twice that, the end is cut away */
static const long long buildspace = 1LL << 30;          /* free bytes a built image needs in the cache */
static const long long resumespace = 64 << 20;          /* free bytes with which a VM paused on a full disk goes on */
static const int manywords = 200;                       /* lines of failed scripts that are passed on */
static const long long copymax = 4 << 20;               /* the largest file of copyToHost, bytes */
static const int manyreboots = 20;                      /* of a guest are logged, and no more */
static const int manyforwards = 100000;                 /* forwards logged, in the life of a VM */
static const long long journalcap = 256 << 10;          /* ha.forwards is written anew when it grows beyond, bytes */
static const int consolelines = 20;                     /* lines of the console shown with a failure */

static const char *const virtiofsds[] = {               /* the first that is there */
	"virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/local/libexec/virtiofsd", NULL
};

static const char *const sftpservers[] = {              /* OpenSSH's, for `sftpDriver: openssh-sftp-server` */
	"sftp-server", "/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server",
	"/usr/lib/ssh/sftp-server", "/usr/lib/sftp-server", NULL
};

static const char vncdefault[] = "127.0.0.1:0,to=9";   /* video.vnc.display: the first free one of ten */

/* ---- QEMU: a row for each guest architecture ---- */
static const struct arch {
	const char *name;       /* in lima.yaml, and as uname -m prints it */
	const char *other;      /* as Debian and image names spell it */
	const char *qemu;       /* program */
	const char *env;        /* variable that overrides the program */
	const char *machine;    /* -machine, without accel */
	const char *console;    /* serial console in the guest */
	const char *bus;        /* suffix of virtio devices */
	const char *tpm;        /* its device, NULL: none */
	const char *edk2;       /* QEMU's own firmware is edk2-THIS-code.fd */
	const char *efi[8];     /* firmware code files, the first that exists */
} archs[] = {
	{ "x86_64", "amd64", "qemu-system-x86_64", "QEMU_SYSTEM_X86_64", "q35", "ttyS0", "pci", "tpm-crb", "x86_64", {
		"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/OVMF/OVMF_CODE.fd",
		"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd",
		"/usr/share/qemu/ovmf-x86_64.bin", "/usr/share/qemu/ovmf-x86_64-4m.bin",
		"/usr/share/qemu/edk2-x86_64-code.fd" } },
	{ "aarch64", "arm64", "qemu-system-aarch64", "QEMU_SYSTEM_AARCH64", "virt", "ttyAMA0", "pci", "tpm-tis-device", "aarch64", {
		"/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/AAVMF/AAVMF_CODE.fd",
		"/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "/usr/share/qemu/edk2-aarch64-code.fd" } },
	{ "armv7l", "armhf", "qemu-system-arm", "QEMU_SYSTEM_ARM", "virt", "ttyAMA0", "pci", "tpm-tis-device", "arm", {
		"/usr/share/edk2/arm/QEMU_CODE.fd", "/usr/share/AAVMF/AAVMF32_CODE.fd" } },
	{ "riscv64", "riscv64", "qemu-system-riscv64", "QEMU_SYSTEM_RISCV64", "virt,acpi=off", "ttyS0", "pci", "tpm-tis-device", "riscv", {
		"/usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd", "/usr/share/edk2/riscv/RISCV_VIRT_CODE.fd" } },
	{ "ppc64le", "ppc64el", "qemu-system-ppc64", "QEMU_SYSTEM_PPC64", "pseries", "hvc0", "pci", NULL, NULL, { NULL } },
	{ "s390x", "s390x", "qemu-system-s390x", "QEMU_SYSTEM_S390X", "s390-ccw-virtio", "ttysclp0", "ccw", NULL, NULL, { NULL } },
};

/* ---- what the guest's console means ---- */
/* The first row whose text occurs in a line decides.  sshd's own word comes
 * from our boot script (lima-ssh-ready) or from the init system of a stock
 * image; a wrong guess costs one failed handshake. */
static const struct word {
	const char *text;
	enum word_means { WSTAGE, WSSH, WDONE, WERROR, WFAIL, WNEWS, WPANIC, WSTUCK } means;
	const char *say;        /* stage, or what went wrong and what to do */
} consolewords[] = {
	{ "lima-ssh-ready",                     WSSH,   NULL },
	{ "lima-boot-done",                     WDONE,  NULL },
	{ "lima-mount-failed ",                 WERROR, "A directory of the host is not mounted in the guest" },
	{ "lima-degraded ",                     WERROR, "In the guest" },
	{ "lima-provision-failed ",             WFAIL,  "A provision script failed (mode, number, status)" },
	{ "lima-provision-output ",             WFAIL,  "its output" },
	{ "lima-progress ",                     WNEWS,  "The guest is" },
	{ "Kernel panic - not syncing",         WPANIC, "the guest's kernel panicked" },
	{ "Attempted to kill init",             WPANIC, "the guest's init died" },
	{ "You are in emergency mode",          WSTUCK, "the guest stopped in emergency mode" },
	{ "You are in rescue mode",             WSTUCK, "the guest stopped in rescue mode" },
	{ "Press Enter for maintenance",        WSTUCK, "the guest waits for maintenance on its console" },
	{ "grub rescue>",                       WSTUCK, "the boot loader found no system (grub rescue)" },
	{ "GNU GRUB  version",                  WSTAGE, "boot loader" },
	{ "minimal BASH-like line editing",     WSTUCK, "the boot loader waits for commands (grub)" },
	{ "No bootable device",                 WSTUCK, "the firmware found nothing to boot on the image" },
	{ "BdsDxe: No bootable option",         WSTUCK, "the firmware found nothing to boot on the image" },
	{ "(initramfs)",                        WSTUCK, "the initrd did not find the root disk" },
	{ "Started OpenBSD Secure Shell server", WSSH,  NULL },
	{ "Started ssh.service",                WSSH,   NULL },
	{ "Started sshd.service",               WSSH,   NULL },
	{ "Started OpenSSH server daemon",      WSSH,   NULL },
	{ "Starting sshd ... [ ok ]",           WSSH,   NULL },
	{ "Linux version ",                     WSTAGE, "kernel" },
	{ "lima-initrd",                        WSTAGE, "initrd" },
	{ "Run /init as init process",          WSTAGE, "initrd" },
	{ "running in system mode",             WSTAGE, "init system" },
	{ "systemd[1]: ",                       WSTAGE, "init system" },
	{ "Welcome to ",                        WSTAGE, "init system" },
	{ "OpenRC ",                            WSTAGE, "init system" },
	{ "Cloud-init v.",                      WSTAGE, "cloud-init" },
};
