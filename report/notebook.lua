-- Cells, as build.py prepares and pandoc reads them, made into the text of the PDF (Typst) or of a page (HTML).
-- A cell arrives as a Div with its metadata as attributes; in it stand its code and a Div for each output.

local html = FORMAT:match("html") ~= nil
local plain = pandoc.utils.stringify
local about = {} -- the metadata of the cell at hand

local function fail(words) error(about.place .. " " .. words, 0) end
local function raw(text) return pandoc.RawBlock(html and "html" or "typst", text) end
local function read(text) return pandoc.read(text .. "\n", "commonmark_x-emoji-subscript-superscript").blocks end

-- What is a class on a page is a function of template.typ on paper.
local function styled(name, blocks)
  if html then return pandoc.Blocks({ pandoc.Div(blocks, { class = name }) }) end
  return pandoc.Blocks({ raw("#" .. name .. "["), table.unpack(blocks) }) .. { raw("]") }
end

-- Markdown and HTML in an output, and what a reader unfolds: that is left out on paper.
local function unpacked(block)
  if block.text:match("^<details") then return html and read(block.text) or {} end
  if block.format == "markdown" then return read(block.text) end
  if block.text:match("<table") then return pandoc.read(block.text, "html+tex_math_dollars").blocks end
end

local function formula(math)
  local set = pandoc.write(pandoc.Pandoc({ pandoc.Plain({ math }) }), "typst")
  if set:sub(1, 1) ~= "$" then fail("has a formula that cannot be set: " .. math.text) end
end

-- TeX that was not recognised as a formula, for instance for a missing brace, would be printed as it stands.
local function word(str)
  if str.text:find("%$%$") or str.text:find("\\%a") then fail("has TeX not read as a formula: " .. str.text) end
end

-- Numbers to the right, words to the left, and a true minus sign.
local function aligned(tbl)
  for n = 1, #tbl.colspecs do tbl.colspecs[n] = { "AlignRight" } end
  for _, row in ipairs(tbl.bodies[1].body) do
    for n, cell in ipairs(row.cells) do -- a name that spans rows is missing in all but the first of them
      if plain(cell.contents):find("%a%a") then tbl.colspecs[n + #tbl.colspecs - #row.cells] = { "AlignLeft" } end
    end
  end
  return tbl:walk({ Str = function(str) return str.text:match("^-%d") and "−" .. str.text:sub(2) or nil end })
end

local function claim(para) return plain(para):match("^✓") and styled("claim", { para }) or nil end

-- Figures, or tables, with their name: Typst's own name for tables, since a figure in a figure has two.
local function captioned(id, shown)
  local caption = { long = { pandoc.Plain(read(about.caption)[1].content) } }
  if html then return { pandoc.Figure(styled("wide", shown), caption, { id = id }) } end
  if shown[1].t ~= "Table" then return { pandoc.Figure(shown, caption, { id = id }) } end
  shown[1].caption, shown[1].attr = caption, { id = id }
  return shown
end

-- An image with what it shows in words, which pandoc does not hand on to Typst.
local function described(image)
  if html then return pandoc.Image({}, image.src, "", { alt = about.alt, width = about.width }) end
  local look = ("#image(%q, width: %s, alt: %q)"):format(image.src, about.width or "auto", about.alt)
  return pandoc.RawInline("typst", look)
end

-- The blocks of a cell: figures or tables with their caption first, then what else it shows.
local function set(cell)
  local blocks, shown = pandoc.Blocks({}), pandoc.Blocks({})
  for _, block in ipairs(cell:walk({ RawBlock = unpacked }).content) do
    local first = block.t == "Div" and block.content[1]
    local image = first and first.t == "Para" and first.content[1].t == "Image"
    if about.caption and (image or first and first.t == "Table") then
      shown:extend(block.content)
    elseif block.t == "Div" then
      blocks:extend(block.content)
    elseif block.t ~= "CodeBlock" or not cell.classes:includes("code") then
      blocks:insert(block)
    elseif block.text ~= "" then
      blocks:extend(html and { raw("<details><summary>Code</summary>"), block, raw("</details>") } or { block })
    end
  end
  if about.caption then
    if #shown == 0 then fail("has a caption but neither figure nor table") end
    blocks = pandoc.Blocks(captioned(cell.identifier, shown)) .. blocks
  end
  return blocks:walk({ Math = formula, Str = word, Table = aligned, Para = claim, Image = described })
end

function Pandoc(doc)
  local front, answers, body = pandoc.Blocks({}), pandoc.Blocks({}), pandoc.Blocks({})
  for _, cell in ipairs(doc.blocks) do
    about = cell.attributes
    local blocks, tags, see = set(cell), about.tags or "", about.see -- where an answer stands
    if tags:find('"answer"') then blocks = pandoc.Blocks({ pandoc.Div(blocks, { id = cell.identifier }) }) end
    if tags:find('"try"') and not html then blocks = pandoc.Blocks({}) end -- on paper nothing can be tried
    if see then
      if blocks[#blocks].t ~= "Para" then blocks:insert(pandoc.Para({})) end
      blocks[#blocks].content:extend({ pandoc.Space(), table.unpack(read(see)[1].content) })
    end
    if about.ask then blocks = styled("question", read(about.ask)) .. blocks end
    if not html then blocks:insert(1, raw("// " .. about.place)) end
    (tags:find('"front"') and front or tags:find('"summary"') and answers or body):extend(blocks)
  end
  return pandoc.Pandoc(front .. styled("answers", answers) .. body, doc.meta)
end
