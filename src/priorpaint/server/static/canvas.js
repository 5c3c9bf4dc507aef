// The picture with its mask: strokes are kept as they were drawn, so that undo drops one; zoom and pan move the plane.
import { Refused } from "./api.js";

const MOST = 16e6; // pixels of a canvas that every browser has
const INK = "#ff2d2d";

export class Editor {
  constructor(stage, changed) {
    this.stage = stage;
    this.plane = stage.querySelector("#plane");
    this.canvas = stage.querySelector("#mask");
    this.cursor = stage.querySelector("#cursor");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.changed = changed;
    this.tool = "brush";
    this.size = 32;
    this.ops = [];
    this.undone = [];
    this.pointers = new Map();
    this.view = { x: 0, y: 0, scale: 1 };
    this.width = this.height = 1;
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.up(event));
    stage.addEventListener("pointerleave", () => { if (!this.pen) this.cursor.hidden = true; });
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fit()).observe(stage);
  }

  open(width, height, ops = []) {
    const same = width === this.width && height === this.height;
    [this.width, this.height] = [width, height];
    this.share = Math.min(1, Math.sqrt(MOST / (width * height)));
    this.canvas.width = Math.round(width * this.share);
    this.canvas.height = Math.round(height * this.share);
    this.plane.style.width = `${width}px`;
    this.plane.style.height = `${height}px`;
    this.ops = ops;
    this.undone = [];
    this.spot = { x: width / 2, y: height / 2 };
    this.redraw();
    if (!same) this.fit();
  }

  // --- strokes

  add(op) {
    this.ops.push(op);
    this.undone = [];
    this.draw(op);
    this.changed();
  }

  undo() {
    if (!this.ops.length) return;
    this.undone.push(this.ops.pop());
    this.redraw();
    this.changed();
  }

  redo() {
    if (!this.undone.length) return;
    const op = this.undone.pop();
    this.ops.push(op);
    this.draw(op);
    this.changed();
  }

  redraw() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.ops.forEach((op) => this.draw(op));
  }

  draw(op) {
    const c = this.context;
    c.save();
    c.scale(this.share, this.share);
    c.fillStyle = c.strokeStyle = INK;
    if (op.kind === "image") {
      c.clearRect(0, 0, this.width, this.height);
      c.imageSmoothingEnabled = false;
      c.drawImage(op.image, 0, 0, this.width, this.height);
    } else if (op.kind === "rectangle") {
      const [a, b] = [op.points[0], op.points.at(-1)];
      c.fillRect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y));
    } else if (op.kind === "lasso") {
      c.beginPath();
      op.points.forEach((p) => c.lineTo(p.x, p.y));
      c.fill();
    } else {
      if (op.kind === "eraser") c.globalCompositeOperation = "destination-out";
      c.lineWidth = op.size;
      c.lineCap = c.lineJoin = "round";
      c.beginPath();
      c.moveTo(op.points[0].x, op.points[0].y);
      op.points.forEach((p) => c.lineTo(p.x, p.y + 0.001));
      c.stroke();
    }
    c.restore();
  }

  get empty() {
    if (!this.ops.length) return true;
    const pixels = new Uint32Array(this.context.getImageData(0, 0, this.canvas.width, this.canvas.height).data.buffer);
    return !pixels.some((pixel) => pixel >>> 24 >= 128);
  }

  // The mask as a file: white = repaint.
  async file() {
    const out = document.createElement("canvas");
    [out.width, out.height] = [this.width, this.height];
    const c = out.getContext("2d", { willReadFrequently: true });
    c.imageSmoothingEnabled = false;
    c.drawImage(this.canvas, 0, 0, this.width, this.height);
    const image = c.getImageData(0, 0, this.width, this.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = pixels[i] >>> 24 >= 128 ? 0xffffffff : 0xff000000;
    c.putImageData(image, 0, 0);
    return new Promise((done) => out.toBlob(done, "image/png"));
  }

  // Takes a mask file in place of what is painted; undo brings that back.
  async take(blob) {
    const bitmap = await createImageBitmap(blob);
    if (bitmap.width !== this.width || bitmap.height !== this.height) {
      throw new Refused(`The mask has ${bitmap.width}×${bitmap.height} pixels and the picture ${this.width}×${this.height}.`);
    }
    const out = document.createElement("canvas");
    [out.width, out.height] = [this.width, this.height];
    const c = out.getContext("2d", { willReadFrequently: true });
    c.drawImage(bitmap, 0, 0);
    const image = c.getImageData(0, 0, this.width, this.height);
    const bytes = image.data;
    for (let i = 0; i < bytes.length; i += 4) {
      const white = bytes[i] + bytes[i + 1] + bytes[i + 2] >= 384 && bytes[i + 3] >= 128;
      bytes[i] = 255;
      bytes[i + 1] = bytes[i + 2] = 45;
      bytes[i + 3] = white ? 255 : 0;
    }
    c.putImageData(image, 0, 0);
    this.add({ kind: "image", image: out });
  }

  // --- pointers

  at(event) {
    const box = this.stage.getBoundingClientRect();
    const { x, y, scale } = this.view;
    return { x: (event.clientX - box.left - x) / scale, y: (event.clientY - box.top - y) / scale };
  }

  down(event) {
    if (event.button > 1) return;
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size > 1) { // a pinch: what the first finger painted was not meant
      if (this.stroke) { this.stroke = null; this.redraw(); }
      return;
    }
    if (event.button === 1 || this.tool === "pan" || this.space) return;
    this.stroke = { kind: this.tool, size: this.size, points: [this.at(event)] };
    this.show(event);
    this.draw(this.stroke);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    this.show(event);
    if (!before) return;
    if (this.pointers.size > 1) this.pinch(before, event);
    else if (this.stroke) {
      const events = event.getCoalescedEvents?.() ?? [];
      this.stroke.points.push(...(events.length ? events : [event]).map((one) => this.at(one)));
      if (this.stroke.kind !== "brush" && this.stroke.kind !== "eraser") this.redraw();
      this.draw(this.stroke);
    } else this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    this.pointers.set(event.pointerId, event);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.stroke) return;
    const stroke = this.stroke;
    this.stroke = null;
    this.redraw();
    this.add(stroke);
  }

  pinch(before, event) {
    const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
    const far = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const box = this.stage.getBoundingClientRect();
    this.zoom(far(event) / Math.max(1, far(before)), (event.clientX + other.clientX) / 2 - box.left,
      (event.clientY + other.clientY) / 2 - box.top);
    this.pan((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
  }

  wheel(event) {
    event.preventDefault();
    const box = this.stage.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  }

  // Without a mouse: arrows move the brush, Enter puts the pen down and lifts it.
  key(event) {
    const step = (event.shiftKey ? 1 : 0.25) * this.size;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) {
      this.spot.x = Math.min(this.width, Math.max(0, this.spot.x + way[0] * step));
      this.spot.y = Math.min(this.height, Math.max(0, this.spot.y + way[1] * step));
      if (this.pen) {
        this.pen.points.push({ ...this.spot });
        this.redraw();
        this.draw(this.pen);
      }
    } else if (event.key === "Enter" && this.tool !== "pan") {
      if (this.pen) {
        const stroke = this.pen;
        this.pen = null;
        this.redraw();
        this.add(stroke);
      } else {
        this.pen = { kind: this.tool, size: this.size, points: [{ ...this.spot }] };
        this.draw(this.pen);
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.place();
  }

  show(event) {
    this.spot = this.at(event);
    this.place();
  }

  place() {
    this.cursor.hidden = this.tool === "pan" || this.space;
    const size = this.tool === "rectangle" || this.tool === "lasso" ? 6 / this.view.scale : this.size;
    const { style } = this.cursor;
    [style.left, style.top, style.width, style.height] = [`${this.spot.x}px`, `${this.spot.y}px`, `${size}px`, `${size}px`];
    style.borderWidth = `${1.5 / this.view.scale}px`;
    style.boxShadow = `0 0 0 ${1.5 / this.view.scale}px #000`;
  }

  // --- view

  fit() {
    const { clientWidth, clientHeight } = this.stage;
    if (!clientWidth || !clientHeight) return;
    const scale = Math.min(clientWidth / this.width, clientHeight / this.height) * 0.96;
    this.view = { scale, x: (clientWidth - scale * this.width) / 2, y: (clientHeight - scale * this.height) / 2 };
    this.apply();
  }

  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(40, Math.max(0.02, this.view.scale * factor));
    const by = scale / this.view.scale;
    this.view = { scale, x: x - by * (x - this.view.x), y: y - by * (y - this.view.y) };
    this.apply();
  }

  pan(x, y) {
    this.view = { ...this.view, x: this.view.x + x, y: this.view.y + y };
    this.apply();
  }

  apply() {
    const { x, y, scale } = this.view;
    this.plane.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.plane.classList.toggle("sharp", scale >= 3);
    this.stage.classList.toggle("panning", this.tool === "pan" || Boolean(this.space));
    if (this.spot) this.place();
  }
}
